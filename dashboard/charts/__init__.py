"""Plotly figures from finished numbers; nothing is computed or read here."""
