"""The scorecard: known pitfalls, each checked from the run's own files."""
