"""What follows: the tracker, its state and its weights on disk."""
