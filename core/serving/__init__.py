"""One image in, everything that is said about it out."""
