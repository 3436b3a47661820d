"""Drawn chest phantoms with known anatomy and lesions: images that belong to nobody."""
