"""Training clips drawn from shards."""
