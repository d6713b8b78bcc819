"""The commands `backup` and `restore`."""

import argparse
from pathlib import Path

from app.environment import read_settings
from app.errors import OperatorError
from app.store import backup
from app.store.database import SQLITE, parse_url
from app.store.sqlite import sqlite_file


def back_up(options: argparse.Namespace) -> None:
    file = _database_file()
    size = backup.back_up(file, options.file)
    print(f"Backed {file} up to {options.file}: {size:,} bytes, checked.")


def restore(options: argparse.Namespace) -> None:
    file = _database_file()
    kept = backup.restore(options.file, file, replaces=options.replace)
    print(f"Restored {options.file} to {file}, and checked it.")
    if kept:
        print(f"The database that was there is {kept}.")


def _database_file() -> Path:
    address = parse_url(read_settings().database_url)
    if address.drivername != SQLITE:
        raise OperatorError(
            "PostgreSQL has tools of its own: pg_dump and pg_restore, and point-in-time recovery."
        )
    return sqlite_file(address)
