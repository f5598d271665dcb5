"""The files of an archive: listed, their headers read, and the segments that are to be tracked."""
