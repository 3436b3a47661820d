"""Runs of one protocol ranked together, and whether published claims held up."""
