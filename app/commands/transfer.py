"""The commands `export`, `import` and `export-schema`."""

import argparse
import asyncio
import gc
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from app.activity.values import utc_now
from app.commands.databases import require_ready, with_database
from app.commands.progress import show_progress
from app.environment import read_settings
from app.errors import OperatorError, ServiceError
from app.importers import zammad, zendesk
from app.importers.loading import Tally, load
from app.main import input_limits
from app.store.engine import Database
from app.store.exporting import export_lines
from app.store.importing import Importer, LineWrong
from app.store.lines import line_schema

OWN_FORMAT: Final = "ticket-activity"
_OTHER_FORMATS: Final = {"zendesk": zendesk.convert, "zammad": zammad.convert}


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


@dataclass(slots=True)
class Refusals:
    """What an import does with what is wrong: stop, or print it and go on."""

    stops: bool
    count: int = 0

    def take(self, error: LineWrong) -> None:
        if self.stops:
            raise error
        self.count += 1
        print(f"ticket-activity: {error}", file=sys.stderr)

    def conclude(self, what: str) -> None:
        """Raise OperatorError if something was wrong."""
        if self.count:
            raise OperatorError(f"{self.count:,} {what} were wrong, and are left out.")


def import_(options: argparse.Namespace) -> None:
    """Read a file into the database that the settings name."""
    if (options.format == OWN_FORMAT) != (options.namespace is None):
        raise OperatorError(
            "Give --format and --namespace together for tickets of another system, or neither: "
            "--namespace is its address, such as https://example.zendesk.com."
        )
    refusals = Refusals(stops=options.on_error == "stop")
    try:
        if options.format == OWN_FORMAT:
            _import_lines(options.file, refusals)
        else:
            _import_records(options.file, options.format, options.namespace, refusals)
    except LineWrong as error:
        raise OperatorError(f"{options.file}: {error}.") from None


def _import_lines(path: Path, refusals: Refusals) -> None:
    settings = read_settings()

    async def read(database: Database) -> Importer:
        await require_ready(database)
        limits = input_limits(settings)
        importer = Importer(database, limits, refusals.take, show_progress)
        with _opened(path) as file:
            await importer.read(file, _size(file))
        return importer

    with _rare_garbage_collection():
        importer = asyncio.run(with_database(settings, read))
    print(f"Read {path}: {_listed(importer.counts)}.")
    refusals.conclude("lines")


def _import_records(path: Path, format_: str, address: str, refusals: Refusals) -> None:
    settings = read_settings()

    async def read() -> Tally:
        await with_database(settings, require_ready)
        with _opened(path) as file:
            convert, size = _OTHER_FORMATS[format_], _size(file)
            return await load(settings, convert, address, file, size, refusals.take, show_progress)

    try:
        tally = asyncio.run(read())
    except ServiceError as error:
        raise OperatorError(error.message) from None
    print(f"Read {path}: added {_listed(tally.added)}; {tally.known:,} were here already.")
    if tally.removed:
        print(f"{tally.removed:,} were deleted, redacted or unmerged here, and stay so.")
    if tally.left_out:
        print(f"Left out: {_listed(tally.left_out)}.")
    refusals.conclude("records")


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count:,} of {name}" for name, count in counts.items()) or "nothing"


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
        raise OperatorError(f"{file} exists already, and is left as it is: name another.")
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


def _size(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size
