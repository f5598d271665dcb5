"""The student: an end-to-end multi-object tracker in plain PyTorch, usable alone."""
