"""Which images there are: known sets, folders, downloads, splits, duplicates, leakage, phantoms."""
