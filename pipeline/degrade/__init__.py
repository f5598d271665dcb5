"""Degradations of clean footage, for training and for the benchmark."""
