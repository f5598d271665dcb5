"""Cells, scores, tables and measures."""
