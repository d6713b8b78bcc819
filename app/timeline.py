"""The use cases both doors call: authenticate, submit a command, read.

The scopes are asked for here and in the policy, so that no door can pass them by.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from app.activity import policy
from app.activity.commands import Command
from app.activity.decide import Outcome
from app.activity.limits import InputLimits
from app.activity.state import Activity, Ticket
from app.auth import Scope, Token, Viewer, parse_authorization
from app.errors import Unauthenticated
from app.models import AccessToken
from app.store.database import Database
from app.store.reader import load_activities, load_tickets
from app.store.tokens import find_token
from app.store.writer import Writer

TOKEN_CACHE_TTL: Final = timedelta(seconds=2)
"""How long a token is trusted before it is looked up again; a revocation takes this long."""

_TOKEN_CACHE_SIZE: Final = 10_000
_TOKEN_USE_RESOLUTION: Final = timedelta(minutes=1)


@dataclass(slots=True)
class _KnownToken:
    row: AccessToken
    read_at: datetime
    use_recorded_at: datetime | None


@dataclass(frozen=True, slots=True)
class Timeline:
    database: Database
    writer: Writer
    limits: InputLimits
    clock: Callable[[], datetime]
    _known_tokens: OrderedDict[str, _KnownToken] = field(default_factory=OrderedDict)

    async def authenticate(self, authorization: str | None) -> Viewer:
        """Tell who sent an `Authorization` header. Raises Unauthenticated."""
        token = parse_authorization(authorization)
        known = await self._known_token(token)
        row = known.row
        if row.revoked_at is not None:
            raise Unauthenticated("The token has been revoked.")
        if row.expires_at is not None and row.expires_at <= self.clock():
            raise Unauthenticated("The token has expired.")
        self._record_use(known)
        scopes = frozenset(Scope(scope) for scope in row.scopes)
        return Viewer(row.actor_id, row.name, scopes, row.id)

    async def submit(self, viewer: Viewer, command: Command) -> Outcome:
        """Carry out a command; the outcome is on disk. Raises UserError or Busy."""
        policy.require_read(viewer)
        command.check(self.limits)
        return await self.writer.submit(viewer, command)

    async def find_activity(self, viewer: Viewer, ticket_id: UUID, activity_id: UUID) -> Activity:
        """Return one entry. Raises NotFound, also for one that the viewer may not see."""
        [activity] = await self.load_activities(viewer, [activity_id])
        return policy.require_visible(viewer, ticket_id, activity_id, activity)

    async def load_activities(self, viewer: Viewer, ids: Sequence[UUID]) -> list[Activity | None]:
        """Return entries in the order of the ids, None where the viewer sees none."""
        policy.require_read(viewer)
        found = await load_activities(self.database, ids)
        return [
            activity if activity and policy.can_see(viewer, activity) else None
            for activity in found
        ]

    async def load_tickets(self, viewer: Viewer, ids: Sequence[UUID]) -> list[Ticket | None]:
        """Return tickets in the order of the ids, None where there is none."""
        policy.require_read(viewer)
        return await load_tickets(self.database, ids)

    async def _known_token(self, token: Token) -> _KnownToken:
        known = self._known_tokens.get(token.id)
        now = self.clock()
        if known is None or not timedelta() <= now - known.read_at < TOKEN_CACHE_TTL:
            known = await self._read_token(token, now)
        if not token.matches(known.row.secret_hash):
            raise Unauthenticated("The token is not known here.")
        return known

    async def _read_token(self, token: Token, now: datetime) -> _KnownToken:
        before = self._known_tokens.pop(token.id, None)
        row = await find_token(self.database, token.id)
        if row is None:
            raise Unauthenticated("The token is not known here.")
        known = _KnownToken(row, now, before.use_recorded_at if before else row.last_used_at)
        self._known_tokens[token.id] = known
        if len(self._known_tokens) > _TOKEN_CACHE_SIZE:
            self._known_tokens.popitem(last=False)
        return known

    def _record_use(self, known: _KnownToken) -> None:
        now, recorded_at = self.clock(), known.use_recorded_at
        if recorded_at is None or now - recorded_at >= _TOKEN_USE_RESOLUTION:
            known.use_recorded_at = now
            self.writer.record_token_use(known.row.id, now)
