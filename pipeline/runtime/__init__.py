"""Ray, stopping, progress and MLflow."""
