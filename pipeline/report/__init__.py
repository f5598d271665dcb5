"""The page of a tracking run: what was done, how good the pictures were, and each track."""
