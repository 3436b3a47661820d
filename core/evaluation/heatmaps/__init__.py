"""Whether heat maps can be believed: the pointing game on phantoms and sanity checks."""
