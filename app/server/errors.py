"""What ends or prevents the service."""


class CannotServe(Exception):
    """The service cannot start, or cannot go on. The message is one line for the operator."""
