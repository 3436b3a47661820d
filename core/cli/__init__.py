"""The command line: one module a command, listed in core.__main__.

Slow imports (tables, models, statistics) stand inside the functions that run a command.
"""
