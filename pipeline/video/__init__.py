"""Headers, limits and decoded frames of video files."""
