"""Videos with tracks drawn on them."""
