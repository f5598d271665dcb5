"""The tracker, the state of its tracks, and its weights on disk."""
