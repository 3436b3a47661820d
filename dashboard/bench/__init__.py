"""Measurements of the dashboard itself: page timing and load. For development only."""
