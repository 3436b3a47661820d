"""Architectures, their recipes and the pretrained weights they start from."""
