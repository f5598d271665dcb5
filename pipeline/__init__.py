"""The batch pipeline: an archive of videos in, tables of tracks and quality out."""
