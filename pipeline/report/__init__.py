"""What people look at: the page of a run, and overlays on its videos."""
