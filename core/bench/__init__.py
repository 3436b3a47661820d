"""Measurements of speed and memory, and fuzzing."""
