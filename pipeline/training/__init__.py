"""Trainings in this process or on Ray: their data, folder, log and score."""
