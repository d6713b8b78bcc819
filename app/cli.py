"""The operator's door: serve, migrate, token, schema. What goes wrong is one line and exit 1."""

import argparse
import asyncio
import multiprocessing
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from types import FrameType
from typing import Any, Final, TypeVar
from uuid import UUID

import uvicorn
from pydantic import ValidationError
from sqlalchemy.exc import DBAPIError
from starlette.applications import Starlette
from uvicorn.supervisors.multiprocess import Multiprocess

from app.activity.values import format_datetime, parse_uuid, utc_now
from app.auth import Scope, Token, Viewer
from app.demo import ADA, ALAN, PRINTER, DemoClock, demo_hints, load_demo
from app.errors import InvalidInput
from app.graphql.schema import print_schema
from app.graphql_server.documents import ManifestUnusable
from app.main import create_app, create_timeline, running
from app.models import AccessToken
from app.settings import ENV_PREFIX, Settings
from app.store.database import (
    Database,
    DatabaseUnusable,
    open_database,
    parse_url,
    require_openable,
    sqlite_file,
)
from app.store.migrate import migrate
from app.store.reader import has_tickets, load_tickets
from app.store.tokens import create_token, list_tokens, revoke_token

_DEMO_TOKEN_LIFE: Final = timedelta(days=1)
_GRACE_SECONDS: Final = 30
_DURATION: Final = re.compile(r"([1-9][0-9]{0,4})([dhm])")
_MAX_NAME_LENGTH: Final = 100
_MAX_WORKERS: Final = 64
_UNITS: Final = {"d": "days", "h": "hours", "m": "minutes"}


T = TypeVar("T")


class OperatorError(Exception):
    """What the operator has to mend, in one line."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], None] = options.command
    try:
        command(options)
    except (OperatorError, DatabaseUnusable, ManifestUnusable) as error:
        print(f"ticket-activity: {error}", file=sys.stderr)
        return 1
    return 0


def serve(options: argparse.Namespace) -> None:
    settings = _settings()
    create_app(settings)  # what is wrong with the settings ends the start here
    listener = _listen(settings)
    asyncio.run(_prepare_database(settings))
    if options.demo and (tokens := asyncio.run(_prepare_demo(settings))):
        print(demo_hints(settings, listener.getsockname()[1], *tokens), flush=True)
    config = uvicorn.Config(
        "app.cli:create_served_app",
        factory=True,
        workers=options.workers,
        http="httptools",
        ws="websockets-sansio",
        ws_max_size=settings.max_body_bytes,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
    # Uvicorn ends gracefully, then raises the signal again for whoever handled it before: nobody.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    if options.workers > 1:
        Multiprocess(config, [listener]).run()
    else:
        uvicorn.Server(config).run(sockets=[listener])


def create_served_app() -> Starlette:
    """Build the service in the process that serves it, by the settings."""
    app = create_app(_settings())
    running = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(app_: Starlette) -> AsyncIterator[Any]:
        for number in (signal.SIGINT, signal.SIGTERM):
            _before(number, app_.state.end_streams)
        _end_with_parent()
        async with running(app_) as state:
            yield state

    app.router.lifespan_context = lifespan
    return app


def _end_with_parent() -> None:
    """Let a worker end as on SIGTERM when the process that started it is gone."""
    if parent := multiprocessing.parent_process():
        loop = asyncio.get_running_loop()

        def end() -> None:
            loop.remove_reader(parent.sentinel)
            signal.raise_signal(signal.SIGTERM)

        loop.add_reader(parent.sentinel, end)


def _before(number: signal.Signals, act: Callable[[], None]) -> None:
    """Do something before what Uvicorn does on a signal: it waits for streams, and tells nobody."""
    loop, handle = asyncio.get_running_loop(), signal.getsignal(number)

    def handler(received: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(act)
        if callable(handle):
            handle(received, frame)

    signal.signal(number, handler)


def migrate_database(_options: argparse.Namespace) -> None:
    asyncio.run(_prepare_database(_settings()))


def print_sdl(_options: argparse.Namespace) -> None:
    print(print_schema(), end="")


def create(options: argparse.Namespace) -> None:
    now = utc_now()

    async def issue(database: Database) -> Token:
        return await create_token(
            database,
            name=options.name,
            actor_id=options.actor,
            scopes=set(options.scope or (Scope.READ, Scope.WRITE)),
            created_at=now,
            expires_at=options.expires_in and now + options.expires_in,
        )

    print(asyncio.run(_with_database(_settings(), issue)).text)


def list_all(_options: argparse.Namespace) -> None:
    for row in asyncio.run(_with_database(_settings(), list_tokens)):
        print(_token_line(row))


def revoke(options: argparse.Namespace) -> None:
    async def revoke_it(database: Database) -> bool:
        return await revoke_token(database, options.id, utc_now())

    if not asyncio.run(_with_database(_settings(), revoke_it)):
        raise OperatorError(f"There is no token with the id {options.id}.")
    print(f"Revoked {options.id}; running processes refuse it within 5 seconds.")


def _settings() -> Settings:
    """Read the settings; a wrong value or a name that is none ends the start."""
    names = {f"{ENV_PREFIX}{name}".upper() for name in Settings.model_fields}
    given = {name for name in os.environ if name.upper().startswith(ENV_PREFIX)}
    if unknown := sorted(name for name in given if name.upper() not in names):
        raise OperatorError(f"There is no setting {', '.join(unknown)}; README.md lists them all.")
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = f"{ENV_PREFIX}{first['loc'][0]}".upper()
        raise OperatorError(f"{name} is {first['input']!r}: {first['msg']}.") from None


def _listen(settings: Settings) -> socket.socket:
    """Take the port before anything else is done."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise OperatorError(
            f"Cannot listen on {settings.host} port {settings.port}: {error.strerror}. "
            f"{ENV_PREFIX}HOST and {ENV_PREFIX}PORT choose another."
        ) from None
    return listener


async def _prepare_database(settings: Settings) -> None:
    file = sqlite_file(parse_url(settings.database_url))
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OperatorError(f"Cannot make the folder {file.parent}: {error.strerror}.") from None
    await _with_database(settings, migrate)


async def _with_database(
    settings: Settings, use: Callable[[Database], Coroutine[Any, Any, T]]
) -> T:
    """Run one piece of work; what the engine says against it becomes one line."""
    require_openable(settings.database_url)
    database = open_database(settings.database_url, read_connections=1)
    try:
        return await use(database)
    except DBAPIError as error:
        raise OperatorError(
            f"Cannot use the database {parse_url(settings.database_url).database}: {error.orig}."
        ) from None
    finally:
        await database.close()


async def _prepare_demo(settings: Settings) -> list[str]:
    """Load the demo into an empty database; return tokens where the demo is what it holds."""
    now = utc_now()
    if not await _with_database(settings, has_tickets):
        timeline = create_timeline(settings, DemoClock(now))
        async with running(timeline):
            await load_demo(timeline)

    async def issue(database: Database) -> list[str]:
        [ticket] = await load_tickets(database, [PRINTER])
        viewers = (ADA, ALAN) if ticket else ()
        return [(await _demo_token(database, viewer, now)).text for viewer in viewers]

    return await _with_database(settings, issue)


async def _demo_token(database: Database, viewer: Viewer, now: datetime) -> Token:
    return await create_token(
        database,
        name=f"{viewer.name} (demo)",
        actor_id=viewer.actor_id,
        scopes=viewer.scopes,
        created_at=now,
        expires_at=now + _DEMO_TOKEN_LIFE,
    )


def _token_line(row: AccessToken) -> str:
    times = (
        ("created", row.created_at),
        ("expires", row.expires_at),
        ("revoked", row.revoked_at),
        ("last used", row.last_used_at),
    )
    return "  ".join(
        [
            row.id,
            row.name,
            f"actor {row.actor_id}",
            ",".join(row.scopes),
            *(f"{label} {format_datetime(at) if at else 'never'}" for label, at in times),
        ]
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ticket-activity", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    serving = commands.add_parser("serve", help="migrate the database and serve both doors")
    serving.add_argument(
        "--demo",
        action="store_true",
        help="load a demo into an empty database, print how to use it",
    )
    serving.add_argument(
        "--workers",
        type=_workers,
        default=1,
        help="processes that serve, on one database (default: 1)",
    )
    serving.set_defaults(command=serve)
    migrating = commands.add_parser("migrate", help="bring the database to this release")
    migrating.set_defaults(command=migrate_database)
    printing = commands.add_parser("schema", help="print the GraphQL schema")
    printing.set_defaults(command=print_sdl)
    tokens = commands.add_parser("token", help="issue, list and revoke tokens")
    _add_token_commands(tokens.add_subparsers(required=True, metavar="COMMAND"))
    return parser


def _add_token_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    creating = commands.add_parser("create", help="issue a token and print it, this once")
    creating.add_argument("--name", required=True, type=_name, help="what lists call it")
    creating.add_argument("--actor", required=True, type=_uuid, help="the UUID it acts as")
    creating.add_argument(
        "--scope",
        action="append",
        type=Scope,
        choices=list(Scope),
        metavar="SCOPE",
        help=f"may be repeated: {', '.join(Scope)} (default: the first two)",
    )
    creating.add_argument(
        "--expires-in",
        type=_duration,
        default=timedelta(days=90),
        help="such as 90d, 12h, 30m, or never (default: 90d)",
    )
    creating.set_defaults(command=create)
    listing = commands.add_parser("list", help="list tokens, without their secrets")
    listing.set_defaults(command=list_all)
    revoking = commands.add_parser("revoke", help="revoke a token for good")
    revoking.add_argument("id", help="the id that `list` shows")
    revoking.set_defaults(command=revoke)


def _name(text: str) -> str:
    if not 0 < len(text) <= _MAX_NAME_LENGTH or not text.isprintable():
        raise argparse.ArgumentTypeError(f"give 1 to {_MAX_NAME_LENGTH} printable characters")
    return text


def _workers(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= _MAX_WORKERS:
        raise argparse.ArgumentTypeError(f"give a number from 1 to {_MAX_WORKERS}")
    return int(text)


def _uuid(text: str) -> UUID:
    try:
        return parse_uuid(text)
    except InvalidInput as error:
        raise argparse.ArgumentTypeError(error.message) from None


def _duration(text: str) -> timedelta | None:
    if text == "never":
        return None
    match = _DURATION.fullmatch(text)
    if not match:
        raise argparse.ArgumentTypeError("give a number and d, h or m, such as 90d, or never")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})
