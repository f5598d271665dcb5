"""The student, its variants and its peers, as a benchmark runs them."""
