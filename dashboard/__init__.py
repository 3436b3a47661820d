"""The pages that read runs; start with `python -m streamlit run dashboard/app.py`."""
