"""Opens the database that the settings name, for one command, and prepares it for `serve`."""

import stat
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy.exc import DBAPIError

from app.errors import OperatorError
from app.main import open_settings_database
from app.settings import Settings
from app.store.damage import require_undamaged
from app.store.database import SQLITE, parse_url, shown_address
from app.store.engine import Database
from app.store.errors import CommitFailed
from app.store.migrate import migrate, require_current, require_whole
from app.store.sqlite import give_to_owner_of_folder, sqlite_file

T = TypeVar("T")


async def with_database(settings: Settings, use: Callable[[Database], Coroutine[Any, Any, T]]) -> T:
    """Run one piece of work; what the engine says against it becomes one line."""
    database = open_settings_database(settings)
    told: set[str] = set()

    def tell(line: str) -> None:
        if not told:
            _tell(line)
        told.add(line)

    try:
        await database.require_usable(settings.database_start_seconds, tell)
        return await use(database)
    except DBAPIError as error:
        shown = shown_address(settings.database_url)
        raise OperatorError(f"Cannot use the database {shown}: {error.orig}.") from None
    except CommitFailed as error:
        cause = getattr(error.__cause__, "orig", error.__cause__)
        raise OperatorError(
            f"The last COMMIT failed: {cause}. It may be stored or not: look before you repeat it."
        ) from None
    finally:
        await database.close()


async def require_ready(database: Database) -> None:
    await require_whole(database)
    await require_current(database)


async def prepare_database(settings: Settings) -> None:
    """Bring the database to this release. Create its file, if it is one."""
    file = make_file(settings)
    _require_undamaged(settings)
    await with_database(settings, _migrate_whole)
    if file and file.stat().st_mode & stat.S_IROTH:
        _tell(f"every user may read {file}; chmod 600 it.")


async def require_prepared(settings: Settings) -> None:
    """Raise DatabaseUnusable unless another command has brought the database to this release."""
    _require_undamaged(settings)
    await with_database(settings, require_ready)


def make_file(settings: Settings) -> Path | None:
    """Create the file of an SQLite database, unless it is there, and return it."""
    address = parse_url(settings.database_url)
    if address.drivername != SQLITE:
        return None
    file = sqlite_file(address)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        # SQLite gives its journals the mode of the file beside them.
        if not file.exists():
            file.touch(mode=0o600)
            give_to_owner_of_folder(file)
    except OSError as error:
        raise OperatorError(
            f"Cannot make the database {file}: {error.strerror}. TICKET_ACTIVITY_DATABASE_URL "
            "names another place."
        ) from None
    return file


async def _migrate_whole(database: Database) -> None:
    await require_whole(database)
    await migrate(database)


def _require_undamaged(settings: Settings) -> None:
    """Raise DatabaseUnusable for a damaged file of SQLite."""
    address, seconds = parse_url(settings.database_url), settings.database_check_seconds
    if address.drivername != SQLITE or not seconds or not sqlite_file(address).exists():
        return
    if not require_undamaged(sqlite_file(address), seconds):
        _tell(f"the file is large: {seconds:g} s were not enough to look through it for damage.")


def _tell(line: str) -> None:
    print(f"ticket-activity: {line}", file=sys.stderr)
