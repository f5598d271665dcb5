"""Training on a GPU machine without this project: the files copied there and back."""
