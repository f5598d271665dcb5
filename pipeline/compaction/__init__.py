"""The tables of many videos become few large files."""
