"""The commands `serve` and `check-config`."""

import argparse
import asyncio
import logging
import sys
from datetime import datetime, timedelta
from importlib.metadata import version
from typing import Final

from sqlmodel import Session

from app.activity.values import utc_now
from app.auth import Token, Viewer
from app.commands.databases import prepare_database, require_prepared, with_database
from app.demo import ADA, ALAN, PRINTER, DemoClock, demo_hints, load_demo
from app.environment import read_settings
from app.errors import OperatorError
from app.log import flush_log
from app.log_format import configure_log
from app.main import create_app, create_timeline, running
from app.server.listener import (
    exposure,
    is_for_this_machine,
    is_reload,
    listen,
    origin_of,
    raise_descriptor_limit,
    require_usable_certificate,
    restart_with,
)
from app.server.server import serve_in_this_process
from app.server.workers import serve_in_workers
from app.settings import Settings
from app.store.database import shown_address
from app.store.migrate import newest_revision
from app.store.queries import has_tickets, load_tickets
from app.store.tokens import create_token

_log: Final = logging.getLogger("ticket-activity")

_DEMO_TOKEN_LIFE: Final = timedelta(days=1)


def serve(options: argparse.Namespace) -> None:
    settings = read_settings()
    create_app(settings)  # raises where a setting is wrong, before anything is written
    configure_log(settings)
    try:
        _serve(settings, options)
    except OperatorError:
        if flush_log():
            raise
        sys.exit(1)  # nobody reads standard error, so to say more there would never end


def _serve(settings: Settings, options: argparse.Namespace) -> None:
    require_usable_certificate(settings)
    raise_descriptor_limit()
    if is_reload():  # until now it was served, so it need not be looked through again
        settings = settings.model_copy(update={"database_check_seconds": 0})
    with listen(settings) as listener:
        if options.demo or is_for_this_machine(listener, settings):
            settings = settings.without_default_rate_limits()
        prepare = prepare_database if settings.migrate_at_start else require_prepared
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


def _start_line(settings: Settings, origin: str, workers: int) -> str:
    return (
        f"ticket-activity {version('ticket-activity')} serves {origin} with {workers} "
        f"process{'es' if workers > 1 else ''} on {shown_address(settings.database_url)} "
        f"at migration {newest_revision()}."
    )


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
