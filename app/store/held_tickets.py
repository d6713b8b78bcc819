"""Keeps a ticket that another transaction holds for long from delaying the writes to others."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Protocol, TypeVar
from uuid import UUID

from app.store.batch import find_held
from app.store.engine import Database

_MOST: Final = 4096
"""Tickets that are remembered; where more are held, it is not about single tickets."""


class OnTickets(Protocol):
    @property
    def ticket_ids(self) -> Collection[UUID]: ...


J = TypeVar("J", bound=OnTickets)


@dataclass(slots=True, eq=False)
class HeldTickets:
    """Remembers the tickets that a unit of work waited for in vain.

    What names one of them is carried out after the rest and waits for a moment only, until the
    ticket was free once.
    """

    database: Database
    _ids: set[UUID] = field(default_factory=set)

    def split(self, jobs: Sequence[J]) -> tuple[list[J], list[J]]:
        """Return the jobs that name no ticket that is remembered, and those that do."""
        free: list[J] = []
        held: list[J] = []
        for job in jobs:
            (free if self._ids.isdisjoint(job.ticket_ids) else held).append(job)
        return free, held

    async def look(self, jobs: Iterable[OnTickets]) -> None:
        """Find out which tickets of these jobs another transaction holds now."""
        ids = set[UUID]().union(*(job.ticket_ids for job in jobs))
        try:
            held = await self.database.write(partial(find_held, ticket_ids=ids))
        except Exception:  # whole tables are locked, or the database has gone meanwhile
            held = set()
        self._ids = self._ids - ids | held
        if len(self._ids) > _MOST:
            self._ids = held

    def forget(self, jobs: Iterable[OnTickets]) -> None:
        """Note that the tickets of these jobs are free."""
        if self._ids:
            self._ids.difference_update(*(job.ticket_ids for job in jobs))
