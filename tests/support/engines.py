"""The engines of the tests: each makes databases of its own, with the tables or without."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol
from uuid import uuid4

import anyio
from sqlalchemy.exc import DBAPIError

from app.store.database import open_database
from app.store.migrate import migrate
from tests.support.postgresql import PostgresqlServer, postgresql_server

REFUSED_VALUE = (UnicodeEncodeError, DBAPIError)
"""What is raised for half of a surrogate pair: by SQLite's driver, and by PostgreSQL's."""


class Engine(Protocol):
    name: str

    def new_database(self, *, is_migrated: bool = True, is_unused: bool = False) -> str:
        """Return the address of a database with no rows; `is_unused`: that no other test used."""

    def drop(self, url: str) -> None:
        """Delete a database."""


class SqliteEngine:
    name = "sqlite"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._template = folder / "template.db"
        _migrate(_sqlite_url(self._template))

    def new_database(self, *, is_migrated: bool = True, is_unused: bool = False) -> str:  # noqa: ARG002
        file = self._folder / str(uuid4()) / "ticket-activity.db"
        file.parent.mkdir()
        if is_migrated:
            shutil.copy(self._template, file)
        return _sqlite_url(file)

    def drop(self, url: str) -> None:
        shutil.rmtree(Path(url.partition(":///")[2]).parent)


class PostgresqlEngine:
    """Gives a database to one test after the other: to empty one takes a tenth of making one."""

    name = "postgresql"

    def __init__(self, server: PostgresqlServer) -> None:
        self.server = server
        self._template = server.create()
        _migrate(self._template)
        self._blank = server.contents(self._template)
        self._copies: set[str] = set()
        self._idle: list[str] = []

    def new_database(self, *, is_migrated: bool = True, is_unused: bool = False) -> str:
        if not is_migrated:
            return self.server.create()
        if self._idle and not is_unused:
            return self._idle.pop()
        url = self.server.create(self._template)
        self._copies.add(url)
        return url

    def drop(self, url: str) -> None:
        if url in self._copies and self.server.reset(url, self._blank):
            self._idle.append(url)
        else:
            self.server.drop(url)


@contextmanager
def engine_of(name: str, folder: Path, own_server: str | None, version: int) -> Iterator[Engine]:
    if name == "sqlite":
        yield SqliteEngine(folder)
        return
    with postgresql_server(own_server, version) as server:
        yield PostgresqlEngine(server)


def _sqlite_url(file: Path) -> str:
    return f"sqlite+aiosqlite:///{file}"


def _migrate(url: str) -> None:
    async def run() -> None:
        database = open_database(url)
        await migrate(database)
        await database.close()

    anyio.run(run)
