"""Queries over the tables of many videos, before and after compaction."""
