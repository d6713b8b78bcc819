"""Classifies errors of the database by their codes, and translates them for clients."""

import logging
import sqlite3
from enum import Enum, auto
from typing import Final

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, InterfaceError, InternalError

from app.errors import Busy, StorageFull, StorageUnwritable, WriteInDoubt
from app.store.errors import CommitFailed, StoreError

_log = logging.getLogger(__name__)


class Fault(Enum):
    LOCKED = auto()  # another process held the lock of the whole database for too long
    HELD = auto()  # another transaction held a row or a table for too long
    NO_ROOM = auto()
    UNWRITABLE = auto()  # the disk refuses writes: it is read-only, or broken
    INTERRUPTED = auto()  # the statement took too long, or `should_stop` ended it
    LOST = auto()  # the connection ended, or none can be had now
    REFUSED = auto()  # the server lets this service in no longer: its role, password or database
    TO_REPEAT = auto()  # the database rolled this transaction back for another one: it is run again


_SQLITE_CODES: Final = {
    sqlite3.SQLITE_BUSY: Fault.LOCKED,
    sqlite3.SQLITE_LOCKED: Fault.LOCKED,
    sqlite3.SQLITE_FULL: Fault.NO_ROOM,
    sqlite3.SQLITE_INTERRUPT: Fault.INTERRUPTED,
    sqlite3.SQLITE_READONLY: Fault.UNWRITABLE,
}
_SQLITE_EXTENDED_CODES: Final = {
    # Not a failed sync: after that the write may be on the disk.
    sqlite3.SQLITE_IOERR_WRITE: Fault.UNWRITABLE,
}

# https://www.postgresql.org/docs/current/errcodes-appendix.html
_SQLSTATES: Final = {
    "25006": Fault.LOST,  # read_only_sql_transaction: the server has become a standby
    "25P03": Fault.LOST,  # idle_in_transaction_session_timeout: this process was too slow
    "28000": Fault.REFUSED,  # invalid_authorization_specification
    "28P01": Fault.REFUSED,  # invalid_password
    "3D000": Fault.REFUSED,  # invalid_catalog_name
    "40001": Fault.TO_REPEAT,  # serialization_failure
    "40P01": Fault.TO_REPEAT,  # deadlock_detected
    "53100": Fault.NO_ROOM,  # disk_full
    "53300": Fault.LOST,  # too_many_connections
    "55P03": Fault.HELD,  # lock_not_available
    "57014": Fault.INTERRUPTED,  # query_canceled
    "57P01": Fault.LOST,  # admin_shutdown
    "57P02": Fault.LOST,  # crash_shutdown
    "57P03": Fault.LOST,  # cannot_connect_now
    "57P05": Fault.LOST,  # idle_session_timeout
}
_CONNECTION_EXCEPTIONS: Final = "08"  # a class of SQLSTATEs
_DATA_EXCEPTIONS: Final = "22"
_INTEGRITY_VIOLATIONS: Final = "23"


_NOT_COMMITTED: Final = {Fault.NO_ROOM, Fault.UNWRITABLE, Fault.TO_REPEAT}
"""Faults of a COMMIT that say that nothing of it was stored."""


def fault_of(error: BaseException | None) -> Fault | None:
    """Return the kind of fault; None if it is none of the database, or a wrong statement."""
    if isinstance(error, OSError | TimeoutError):
        return Fault.LOST
    if not isinstance(error, DBAPIError):
        return None
    if (code := getattr(error.orig, "sqlite_errorcode", None)) is not None:
        return _SQLITE_EXTENDED_CODES.get(code) or _SQLITE_CODES.get(code & 0xFF)
    sqlstate = getattr(error.orig, "sqlstate", "") or ""
    if error.connection_invalidated or sqlstate.startswith(_CONNECTION_EXCEPTIONS):
        return Fault.LOST
    is_of_driver = isinstance(error, InterfaceError | InternalError) and not sqlstate
    if is_of_driver and hasattr(error.orig, "sqlstate"):
        return Fault.LOST  # asyncpg itself: the connection is closed, or just being closed
    return _SQLSTATES.get(sqlstate)


def is_full(error: BaseException) -> bool:
    """Return whether the server refused a connection because it has as many as it takes."""
    return getattr(getattr(error, "orig", None), "sqlstate", None) == "53300"


def is_about_a_value(error: DBAPIError) -> bool:
    """Return whether the database, or its driver, refused a value."""
    # SQLAlchemy knows no class of its own for what asyncpg calls a DataError.
    sqlstate = getattr(error.orig, "sqlstate", "") or ""
    is_refused = sqlstate.startswith((_DATA_EXCEPTIONS, _INTEGRITY_VIOLATIONS))
    return isinstance(error, IntegrityError | DataError) or is_refused


def as_told(error: Exception) -> Exception:
    """Return the error for the client, or the error itself if it is a bug."""
    match fault_of(error):
        case Fault.NO_ROOM:
            return StorageFull("The disk of the database is full; nothing was written.")
        case Fault.UNWRITABLE:
            return StorageUnwritable(
                "The disk of the database takes no writes; nothing was written."
            )
        case Fault.LOCKED | Fault.HELD | Fault.TO_REPEAT:
            return Busy("Another process holds the database; send the request again.")
        case Fault.INTERRUPTED:
            return Busy("The database took too long; send the request again.")
        case Fault.LOST | Fault.REFUSED:
            return Busy("The database cannot be reached; send the request again.")
        case _:
            return error


def may_be_fault_of_one(error: Exception) -> bool:
    """Return whether a value of one job may be at fault, rather than the database or its disk."""
    if isinstance(error, StoreError) or fault_of(error):
        return False
    return not isinstance(error, DBAPIError) or is_about_a_value(error)


def as_told_of_write(error: Exception) -> Exception:
    """As `as_told`, for an error of a unit of work, whose COMMIT may have failed."""
    cause = error.__cause__ if isinstance(error, CommitFailed) else error
    if isinstance(error, CommitFailed) and fault_of(cause) not in _NOT_COMMITTED:
        _log.error("A COMMIT failed.", exc_info=error)
        return WriteInDoubt("The COMMIT failed; read before you send the request again.")
    assert isinstance(cause, Exception)  # noqa: S101
    return as_told(cause)
