"""Labelled sequences and stills, and shards made of them."""
