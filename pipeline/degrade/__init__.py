"""Clean footage made poor, for training and for the benchmark."""
