"""Measures of archives with many videos."""
