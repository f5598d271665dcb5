"""The layers of the student, from backbone to decoder."""
