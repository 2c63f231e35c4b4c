"""What is raised where the weights of a model cannot be read."""


class UnreadWeightError(ValueError):
    """A weight that cannot be read; the message is the reason, a whole sentence."""


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, without its full stop."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".")
