"""Errors of the store, which are not themselves sent to clients.

StoreError
    DatabaseUnusable   the operator must fix something
    CommitFailed       the COMMIT itself failed
    LongRead           a read takes too long to share a connection; it is run again on its own
"""

from app.errors import OperatorError


class StoreError(Exception):
    """An error of the store, as opposed to one that the database raises."""


class DatabaseUnusable(StoreError, OperatorError):
    """The database cannot be opened."""


class CommitFailed(StoreError):
    """COMMIT failed, so the work may be on disk. It must not be repeated."""


class LongRead(StoreError):
    """A load took too long for a shared connection, or came after its snapshot had ended."""
