"""`vsdmot doctor`: whether this machine, and what a run needs beside it, is fit for use."""
