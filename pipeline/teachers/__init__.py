"""Teachers by their settings, and those that need a runtime of other projects' networks."""
