"""Students, their variants and their peers, as the benchmark runs them."""
