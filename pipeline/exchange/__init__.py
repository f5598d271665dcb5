"""Tracks go out to the tools of others: files in their formats, and objects of their libraries."""
