"""Windows of one video, tracked apart, become one: whose tracks are the same person."""
