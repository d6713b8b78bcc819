"""Tokens at rest: issue, list, revoke, and find with the viewer they stand for."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import bindparam, update
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.auth import Scope, Token, generate_token
from app.models import AccessToken
from app.store import rows
from app.store.database import Database

_RECORD_USE = update(rows.TOKEN).where(rows.TOKEN.c.id == bindparam("key_id"))


async def create_token(
    database: Database,
    *,
    name: str,
    actor_id: UUID,
    scopes: Iterable[Scope],
    created_at: datetime,
    expires_at: datetime | None,
) -> Token:
    """Issue a token; its text is in the answer and nowhere else."""
    token = generate_token()
    row = AccessToken(
        id=token.id,
        name=name,
        actor_id=actor_id,
        scopes=sorted(scopes),
        secret_hash=token.secret_hash,
        created_at=created_at,
        expires_at=expires_at,
        revoked_at=None,
        last_used_at=None,
    )
    async with database.unit_of_work() as session:
        session.add(row)
    return token


async def list_tokens(database: Database) -> Sequence[AccessToken]:
    """Return every token, the oldest first."""
    async with database.snapshot() as session:
        found = await session.exec(
            select(AccessToken).order_by(col(AccessToken.created_at), col(AccessToken.id))
        )
        return found.all()


async def revoke_token(database: Database, token_id: str, revoked_at: datetime) -> bool:
    """Revoke a token for good; False where there is none. Again is no error and keeps the time."""
    async with database.unit_of_work() as session:
        row = await session.get(AccessToken, token_id)
        if row and row.revoked_at is None:
            row.revoked_at = revoked_at
        return row is not None


async def find_token(database: Database, token_id: str) -> AccessToken | None:
    async with database.snapshot() as session:
        return await session.get(AccessToken, token_id)


async def record_token_uses(session: AsyncSession, uses: Mapping[str, datetime]) -> None:
    if uses:
        await session.exec(
            _RECORD_USE,
            params=[{"key_id": id_, "last_used_at": used_at} for id_, used_at in uses.items()],
        )
