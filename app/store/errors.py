"""What can go wrong with the database, apart from what a client is told.

StoreError
    DatabaseUnusable   the operator must mend something
    CommitFailed       the COMMIT itself failed
    LongRead           a read takes too long to share a connection; it is run again on its own
"""


class StoreError(Exception):
    """Every error of this floor that is not one of the engine's."""


class DatabaseUnusable(StoreError):
    """The database cannot be opened; the message is one line for the operator."""


class CommitFailed(StoreError):
    """COMMIT itself failed, so whether the work is on disk is not known: never repeat it."""


class LongRead(StoreError):
    """A load took longer than a shared connection allows, or came after the snapshot had ended."""
