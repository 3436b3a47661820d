"""The server around the pages: warm-up, and how long uploads stay."""
