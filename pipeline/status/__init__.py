"""How far a run is, from its output alone."""
