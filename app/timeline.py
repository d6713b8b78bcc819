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
from app.activity.pages import Filter, Listing, Page, Position, Side, Window
from app.activity.state import Activity, Revision, Ticket
from app.auth import Scope, Token, Viewer, parse_authorization
from app.errors import Unauthenticated
from app.models import AccessToken
from app.store import pages
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

    async def load_page(self, viewer: Viewer, listing: Listing, window: Window) -> Page[Activity]:
        """Return one page of what the viewer sees of a listing."""
        policy.require_read(viewer)
        return await pages.load_page(self.database, viewer, listing, window)

    async def has_any(self, viewer: Viewer, listing: Listing, *, side: Side, of: Position) -> bool:
        """Tell whether the viewer sees anything on one side of a position, itself included."""
        policy.require_read(viewer)
        return await pages.has_any(self.database, viewer, listing, side=side, of=of)

    async def count_activities(self, viewer: Viewer, ticket_id: UUID, wanted: Filter) -> int:
        """Count what the viewer sees of a timeline and passes the filter."""
        policy.require_read(viewer)
        return await pages.count_activities(self.database, viewer, ticket_id, wanted)

    async def load_revisions(
        self, viewer: Viewer, activities: Sequence[Activity], *, after: int, size: int
    ) -> list[list[Revision]]:
        """Return revisions of entries that the viewer sees now, which makes all of them visible."""
        policy.require_read(viewer)
        return await pages.load_revisions(self.database, activities, after=after, size=size)

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
