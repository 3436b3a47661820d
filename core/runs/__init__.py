"""The artifact contract: the files of a run, read, written, checked and hashed."""
