"""The statements on tokens: issue, list, revoke, find, and note their use."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from uuid import UUID

from sqlmodel import Session, select

from app.auth import IssuedToken, Scope, Token, generate_token
from app.models import AccessToken
from app.store import rows
from app.store.bulk import update_rows
from app.store.parameters import is_among

_FIND = select(*rows.TOKEN_COLUMNS).where(is_among(rows.TOKEN.c.id, "ids"))
_LOCK_FREE = (
    select(rows.TOKEN.c.id)
    .where(is_among(rows.TOKEN.c.id, "ids"))
    .with_for_update(key_share=True, skip_locked=True)
)


def create_token(
    session: Session,
    *,
    name: str,
    actor_id: UUID,
    scopes: Iterable[Scope],
    created_at: datetime,
    expires_at: datetime | None,
) -> Token:
    """Issue a token. Its text is returned, and stored nowhere."""
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
    session.add(row)
    return token


def list_tokens(session: Session) -> list[IssuedToken]:
    """Return every token, the oldest first."""
    statement = select(*rows.TOKEN_COLUMNS).order_by(rows.TOKEN.c.created_at, rows.TOKEN.c.id)
    return [IssuedToken(*row) for row in session.exec(statement)]


def revoke_token(session: Session, token_id: str, revoked_at: datetime) -> bool:
    """Revoke a token; return False if there is none. A revoked one keeps its time of revocation."""
    row = session.get(AccessToken, token_id)
    if row and row.revoked_at is None:
        row.revoked_at = revoked_at
    return row is not None


def find_tokens(session: Session, ids: Sequence[str]) -> dict[str, IssuedToken]:
    """Return the tokens that exist."""
    return {row[0]: IssuedToken(*row) for row in session.exec(_FIND, params={"ids": ids})}


def record_token_uses(session: Session, uses: Mapping[str, datetime]) -> None:
    """Note the last use of tokens, but of those that somebody holds: no write waits for that."""
    if uses:
        free = session.exec(_LOCK_FREE, params={"ids": list(uses)})
        used = [{"key_id": id_, "last_used_at": uses[id_]} for id_ in free]
        update_rows(session, rows.TOKEN, used)
