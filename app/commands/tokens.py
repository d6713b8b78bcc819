"""The commands `token create`, `token list` and `token revoke`."""

import argparse
import asyncio
from functools import partial

from app.activity.values import format_datetime, utc_now
from app.auth import IssuedToken, Scope
from app.commands.databases import with_database
from app.environment import read_settings
from app.errors import OperatorError
from app.store.tokens import create_token, list_tokens, revoke_token


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
        raise OperatorError(
            f"There is no token with the id {options.id}; `ticket-activity token list` shows them."
        )
    print(f"Revoked {options.id}; running processes refuse it within 5 seconds.")


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
