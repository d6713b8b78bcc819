"""The commands `migrate`, `compact` and `copy`."""

import argparse
import asyncio
from functools import partial

from app.commands.databases import make_file, prepare_database, require_ready, with_database
from app.commands.progress import show_progress
from app.environment import read_settings
from app.errors import OperatorError
from app.settings import ENV_PREFIX, Settings
from app.store.copying import copy_database
from app.store.database import shown_address
from app.store.engine import Database
from app.store.errors import DatabaseUnusable
from app.store.migrate import migrate


def migrate_database(_options: argparse.Namespace) -> None:
    asyncio.run(prepare_database(read_settings()))


def compact(_options: argparse.Namespace) -> None:
    if not asyncio.run(with_database(read_settings(), lambda database: database.compact())):
        raise OperatorError(
            "The file is written anew, but somebody reads it, so its write-ahead log still holds "
            "what was deleted. A running service truncates it when it is idle; or run this again."
        )


def copy(options: argparse.Namespace) -> None:
    """Copy the database that the settings name into another one."""
    source = read_settings()
    target = source.model_copy(update={"database_url": options.to})
    try:
        shown = shown_address(options.to)
    except DatabaseUnusable as error:
        raise OperatorError(str(error).replace(f"{ENV_PREFIX}DATABASE_URL", "--to")) from None
    total = asyncio.run(_copy(source, target))
    print(f"Copied {total:,} rows to {shown}, and compared them.")


async def _copy(source: Settings, target: Settings) -> int:
    async def copy_into(database: Database, copied: Database) -> int:
        await migrate(copied)
        return await copy_database(database, copied, show_progress)

    async def copy_from(database: Database) -> int:
        await require_ready(database)
        make_file(target)
        return await with_database(target, partial(copy_into, database))

    return await with_database(source, copy_from)
