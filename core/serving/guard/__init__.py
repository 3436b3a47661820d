"""The guard: tells whether an image looks like what the run learned from."""
