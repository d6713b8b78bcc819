"""The commands of the operator: serve, health, migrate, schema, token."""

import argparse
import asyncio
import logging
import ssl
import stat
import sys
from collections.abc import Callable, Coroutine
from datetime import datetime, timedelta
from functools import partial
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, TypeVar

from sqlalchemy.exc import DBAPIError
from sqlmodel import Session

from app.activity.actors import ActorUpdate
from app.activity.state import ABSENT
from app.activity.values import format_datetime, utc_now
from app.auth import IssuedToken, Scope, Token, Viewer
from app.demo import ADA, ALAN, PRINTER, DemoClock, demo_hints, load_demo
from app.environment import OperatorError, read_settings
from app.erasure import erase_actor
from app.errors import InvalidInput
from app.graphql.schema import print_schema
from app.log import configure_log, flush_log
from app.main import create_app, create_timeline, open_settings_database, running
from app.retention import retain
from app.server.listener import (
    exposure,
    is_for_this_machine,
    listen,
    origin_of,
    raise_descriptor_limit,
    require_usable_certificate,
    restart_with,
)
from app.server.server import serve_in_this_process
from app.server.workers import serve_in_workers
from app.settings import ENV_PREFIX, Settings
from app.store.actors import upsert_actors
from app.store.copying import copy_database
from app.store.damage import require_undamaged
from app.store.database import SQLITE, parse_url, shown_address
from app.store.engine import Database
from app.store.erasure import count_traces
from app.store.errors import CommitFailed, DatabaseUnusable
from app.store.migrate import migrate, newest_revision, require_current, require_whole
from app.store.queries import has_tickets, load_tickets
from app.store.sqlite import give_to_owner_of_folder, sqlite_file
from app.store.tokens import create_token, list_tokens, revoke_token

_log: Final = logging.getLogger("ticket-activity")

_DEMO_TOKEN_LIFE: Final = timedelta(days=1)
_HEALTH_SECONDS: Final = 5
_MAX_ANSWER_BYTES: Final = 10_000

_BAR_WIDTH: Final = 30

T = TypeVar("T")


def serve(options: argparse.Namespace) -> None:
    settings = read_settings()
    create_app(settings)  # raises where a setting is wrong, before anything is written
    configure_log(settings)
    require_usable_certificate(settings)
    raise_descriptor_limit()
    with listen(settings) as listener:
        if options.demo or is_for_this_machine(listener, settings):
            settings = settings.without_default_rate_limits()
        prepare = _prepare_database if settings.migrate_at_start else _check_database
        asyncio.run(prepare(settings))
        tokens = asyncio.run(_prepare_demo(settings)) if options.demo else []
        flush_log()
        origin = origin_of(listener, settings)
        warnings = [*exposure(listener, settings, has_demo=bool(tokens))]

        def announce() -> None:
            _log.info(_start_line(settings, origin, options.workers))
            for warning in warnings:
                _log.warning(warning)
            flush_log()  # a thread writes it, and the hints come after the warnings
            if tokens:
                print(demo_hints(origin, *tokens), flush=True)

        if options.workers > 1:
            serve_in_workers(settings, listener, options.workers, announce)
        elif kept := serve_in_this_process(settings, listener, announce):
            restart_with(kept)


def check_config(_options: argparse.Namespace) -> None:
    """Say whether `serve` could begin with these settings."""
    settings = read_settings()
    require_usable_certificate(settings)
    create_app(settings)  # raises where the address or the trusted documents are wrong
    print(f"The settings are right. The database is {shown_address(settings.database_url)}.")


def check_health(_options: argparse.Namespace) -> None:
    """Ask the service that the settings name whether it is ready."""
    settings = read_settings()
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104
    connection = _local_connection(settings, host)
    try:
        connection.request("GET", "/readyz")
        response = connection.getresponse()
        answer = response.read(_MAX_ANSWER_BYTES).decode(errors="replace")
    except (OSError, HTTPException) as error:
        raise OperatorError(f"No answer from {host} port {settings.port}: {error}.") from None
    finally:
        connection.close()
    if response.status != HTTPStatus.OK:
        raise OperatorError(f"{host} port {settings.port} answers {response.status}: {answer}")
    print(answer)


def migrate_database(_options: argparse.Namespace) -> None:
    asyncio.run(_prepare_database(read_settings()))


def print_sdl(_options: argparse.Namespace) -> None:
    print(print_schema(), end="")


def set_actor(options: argparse.Namespace) -> None:
    if options.name is options.avatar_url is ABSENT:
        raise OperatorError("Give --name, --avatar-url or both.")
    update = ActorUpdate(options.id, options.name, options.avatar_url)
    try:
        update.check()
    except InvalidInput as error:
        raise OperatorError(error.message) from None
    setting = partial(upsert_actors, updates=[update], now=utc_now())
    [actor] = asyncio.run(with_database(read_settings(), lambda database: database.write(setting)))
    print(f"{actor.id}  {actor.name or '-'}  {actor.avatar_url or '-'}")


def erase(options: argparse.Namespace) -> None:
    """Say what names the actor; with `--apply`, erase them."""
    settings = read_settings()
    counting = partial(count_traces, actor_id=options.id)
    traces = asyncio.run(with_database(settings, lambda database: database.read(counting)))
    for kind, count in traces.items():
        print(f"{count} {kind}")
    if not options.apply:
        print("Nothing is changed. Run it with --apply to erase the actor.")
        return
    new_id = asyncio.run(
        erase_actor(settings, options.id, show_progress, redacts=options.redact_messages)
    )
    print(f"Erased: {new_id} takes the place of the id.")


def remove_old(options: argparse.Namespace) -> None:
    """Say what is older than a time; with `--apply`, remove it."""
    before = utc_now() - options.older_than
    removing = partial(retain, before=before, tell=show_progress, applies=options.apply)
    counts = asyncio.run(with_database(read_settings(), removing))
    for kind, count in counts.items():
        print(f"{count} {kind}")
    print(
        f"Removed: they were from before {format_datetime(before)}."
        if options.apply
        else "Nothing is changed. Run it with --apply to remove them."
    )


def create(options: argparse.Namespace) -> None:
    now = utc_now()

    issue = partial(
        create_token,
        name=options.name,
        actor_id=options.actor,
        scopes=set(options.scope or (Scope.READ, Scope.WRITE)),
        created_at=now,
        expires_at=options.expires_in and now + options.expires_in,
    )
    print(asyncio.run(with_database(read_settings(), lambda database: database.write(issue))).text)


def list_all(_options: argparse.Namespace) -> None:
    for row in asyncio.run(
        with_database(read_settings(), lambda database: database.read(list_tokens))
    ):
        print(_token_line(row))


def revoke(options: argparse.Namespace) -> None:
    revoking = partial(revoke_token, token_id=options.id, revoked_at=utc_now())
    if not asyncio.run(with_database(read_settings(), lambda database: database.write(revoking))):
        raise OperatorError(f"There is no token with the id {options.id}.")
    print(f"Revoked {options.id}; running processes refuse it within 5 seconds.")


def _local_connection(settings: Settings, host: str) -> HTTPConnection:
    if settings.tls_certificate is None:
        return HTTPConnection(host, settings.port, timeout=_HEALTH_SECONDS)
    # The certificate names the service as clients call it; nothing secret is sent here.
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return HTTPSConnection(host, settings.port, timeout=_HEALTH_SECONDS, context=context)


def _start_line(settings: Settings, origin: str, workers: int) -> str:
    return (
        f"ticket-activity {version('ticket-activity')} serves {origin} with {workers} "
        f"process{'es' if workers > 1 else ''} on {shown_address(settings.database_url)} "
        f"at migration {newest_revision()}."
    )


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
        _make_file(target)
        return await with_database(target, partial(copy_into, database))

    return await with_database(source, copy_from)


def show_progress(step: str, done: int, total: int) -> None:
    """Draw a bar on a terminal."""
    if sys.stderr.isatty():
        bar = "#" * (_BAR_WIDTH * done // max(total, 1))
        end = "\n" if done >= total else ""
        line = f"\r{step:<36} [{bar:<{_BAR_WIDTH}}] {done:,} of {total:,}"
        print(line, end=end, file=sys.stderr, flush=True)


async def _prepare_database(settings: Settings) -> None:
    """Bring the database to this release. Create its file, if it is one."""
    file = _make_file(settings)
    _require_undamaged(settings)
    await with_database(settings, _migrate_whole)
    if file and file.stat().st_mode & stat.S_IROTH:
        _tell(f"every user may read {file}; chmod 600 it.")


def _make_file(settings: Settings) -> Path | None:
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
        raise OperatorError(f"Cannot make the database {file}: {error.strerror}.") from None
    return file


async def _migrate_whole(database: Database) -> None:
    await require_whole(database)
    await migrate(database)


async def _check_database(settings: Settings) -> None:
    """Raise DatabaseUnusable unless another command has brought the database to this release."""
    _require_undamaged(settings)
    await with_database(settings, require_ready)


def _require_undamaged(settings: Settings) -> None:
    """Raise DatabaseUnusable for a damaged file of SQLite."""
    address, seconds = parse_url(settings.database_url), settings.database_check_seconds
    if address.drivername != SQLITE or not seconds or not sqlite_file(address).exists():
        return
    if not require_undamaged(sqlite_file(address), seconds):
        _tell(f"the file is large: {seconds:g} s were not enough to look through it for damage.")


async def require_ready(database: Database) -> None:
    await require_whole(database)
    await require_current(database)


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


def _tell(line: str) -> None:
    print(f"ticket-activity: {line}", file=sys.stderr)


async def _prepare_demo(settings: Settings) -> list[str]:
    """Load the demo into an empty database. Return tokens if the database holds the demo."""
    now = utc_now()
    if not await with_database(settings, lambda database: database.read(has_tickets)):
        timeline = create_timeline(settings, DemoClock(now))
        async with running(timeline):
            await load_demo(timeline)

    def issue(session: Session) -> list[str]:
        viewers = (ADA, ALAN) if load_tickets(session, [PRINTER]) else ()
        return [_demo_token(session, viewer, now).text for viewer in viewers]

    return await with_database(settings, lambda database: database.write(issue))


def _demo_token(session: Session, viewer: Viewer, now: datetime) -> Token:
    return create_token(
        session,
        name=f"{viewer.name} (demo)",
        actor_id=viewer.actor_id,
        scopes=viewer.scopes,
        created_at=now,
        expires_at=now + _DEMO_TOKEN_LIFE,
    )


def _token_line(row: IssuedToken) -> str:
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
