"""What goes wrong in an export of a run."""


class ExportError(ValueError):
    """A run that cannot be exported as asked; the message says what to do."""
