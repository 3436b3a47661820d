"""Bytes of strangers -> validated grey pixels, and the cache that keeps them."""
