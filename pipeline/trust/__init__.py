"""What a track is, in one row, and how far it can be trusted."""
