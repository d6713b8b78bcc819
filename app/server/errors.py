"""What ends or prevents the service."""

from app.errors import OperatorError


class CannotServe(OperatorError):
    """The service cannot start, or cannot go on."""
