"""Predictions -> figures, intervals and tests; arrays in, numbers out."""
