"""External validation: images from other collections, what overlaps taken out first."""
