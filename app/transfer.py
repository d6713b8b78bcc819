"""The operator's commands that write all data to a file of JSON Lines, and read it back."""

import argparse
import asyncio
import gc
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final
from uuid import NAMESPACE_URL, uuid5

from app.activity.values import utc_now
from app.commands import require_ready, show_progress, with_database
from app.environment import OperatorError, read_settings
from app.importers import zammad, zendesk
from app.main import input_limits
from app.store.engine import Database
from app.store.exporting import export_lines
from app.store.importing import Importer, LineWrong
from app.store.lines import line_schema

OWN_FORMAT: Final = "ticket-activity"
_FORMATS: Final = {"zendesk": zendesk.convert, "zammad": zammad.convert}
FORMATS: Final = (OWN_FORMAT, *_FORMATS)


def export(options: argparse.Namespace) -> None:
    """Write the database that the settings name to a new file."""

    async def write(database: Database) -> int:
        await require_ready(database)
        with _new_file(options.file) as file:
            lines = export_lines(database, utc_now(), show_progress, with_tokens=options.tokens)
            return sum([file.write(text) async for text in lines])

    try:
        size = asyncio.run(with_database(read_settings(), write))
    except BaseException:
        _partial(options.file).unlink(missing_ok=True)
        raise
    _partial(options.file).rename(options.file)
    print(f"Exported {size:,} bytes to {options.file}.")


def import_(options: argparse.Namespace) -> None:
    """Read a file into the database that the settings name."""
    if (options.format == OWN_FORMAT) != (options.namespace is None):
        raise OperatorError(
            "--namespace is the address of the other system, such as https://example.zendesk.com: "
            "it goes with --format, and no import of another system without it."
        )
    settings = read_settings()
    wrong = 0

    def refuse(error: LineWrong) -> None:
        nonlocal wrong
        if options.on_error == "stop":
            raise error
        wrong += 1
        print(f"ticket-activity: {error}", file=sys.stderr)

    async def read(database: Database) -> Importer:
        await require_ready(database)
        importer = Importer(database, input_limits(settings), refuse, show_progress)
        with _opened(options.file) as file:
            size = options.file.stat().st_size
            if options.format == OWN_FORMAT:
                await importer.read(file, size)
            else:
                namespace = uuid5(NAMESPACE_URL, options.namespace)
                convert = partial(_FORMATS[options.format], namespace=namespace)
                await importer.read_records(file, size, convert)
        return importer

    try:
        with _rare_garbage_collection():
            importer = asyncio.run(with_database(settings, read))
    except LineWrong as error:
        raise OperatorError(f"{options.file}: {error}.") from None
    counts = ", ".join(f"{count:,} of {name}" for name, count in importer.counts.items())
    print(f"Read {options.file}: {counts or 'nothing'}.")
    if wrong:
        raise OperatorError(f"{wrong:,} lines were wrong, and are left out.")


@contextmanager
def _rare_garbage_collection() -> Iterator[None]:
    """Collect seldom: a batch of lines is many objects, which reference counting frees."""
    before = gc.get_threshold()
    gc.set_threshold(100_000, 20, 50)
    try:
        yield
    finally:
        gc.set_threshold(*before)


def print_line_schema(_options: argparse.Namespace) -> None:
    print(json.dumps(line_schema(), indent=2))


def _partial(file: Path) -> Path:
    return file.with_name(f"{file.name}.partial")


def _new_file(file: Path) -> BinaryIO:
    """Open a file that is readable by its owner alone, and has its name once it is complete."""
    if file.exists():
        raise OperatorError(f"{file} exists already, and is left as it is.")
    try:
        descriptor = os.open(_partial(file), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    except OSError as error:
        raise OperatorError(f"Cannot write {file}: {error.strerror}.") from None
    return os.fdopen(descriptor, "wb")


def _opened(file: Path) -> BinaryIO:
    try:
        return file.open("rb")
    except OSError as error:
        raise OperatorError(f"Cannot read {file}: {error.strerror}.") from None
