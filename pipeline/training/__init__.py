"""Trainings: in this process or on Ray, with their folder, log and frames."""
