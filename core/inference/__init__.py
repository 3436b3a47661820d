"""The exported models at work: single, as an ensemble, and the maps that explain them."""
