"""Faster convolutions for training on a CPU."""
