"""Teachers, and distillation from them."""
