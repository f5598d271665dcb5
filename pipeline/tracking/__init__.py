"""From an archive to tables of tracks."""
