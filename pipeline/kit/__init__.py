"""Training on a borrowed machine: what goes there and what comes back."""
