"""Work on a GPU machine without this project: training, and measuring the speed of tracking."""
