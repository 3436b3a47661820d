"""Cached reading: everything that Streamlit keeps between drawings."""
