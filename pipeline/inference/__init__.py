"""The student at inference, in PyTorch or in OpenVINO."""
