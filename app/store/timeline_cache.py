"""Caches what was read of timelines, under the states of their tickets.

Every change of an entry increases the `seq` of its ticket, and whatever else changes its rows
increases the `edition`. So a cached result of one state is never wrong, in any process, and is no
longer asked for once the state has changed.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sqlmodel import Session

from app.activity.state import TicketState
from app.store.loads import Snapshot
from app.store.queries import load_states

T = TypeVar("T")

State = tuple[TicketState, ...]

_ENTRY_BYTES = 500
"""Memory of a cached result of one ticket without its texts, rounded up."""


@dataclass(slots=True, eq=False)
class TimelineCache:
    """Caches the results used last, within `max_bytes`."""

    max_bytes: int
    hits: int = 0
    misses: int = 0
    _results: OrderedDict[Hashable, tuple[Any, int]] = field(default_factory=OrderedDict)
    _bytes: int = 0

    async def load(
        self,
        snapshot: Snapshot,
        state: State,
        question: Hashable,
        work: Callable[[Session], T],
        *,
        is_long: bool,
        size_of: Callable[[T], int],
    ) -> T:
        """Return the cached result for tickets in a state, or load it.

        `question` must hold everything else that the result depends on, the viewer included.
        """
        kept = self._results.get((state, question))
        if kept:
            self.hits += 1
            self._results.move_to_end((state, question))
            result: T = kept[0]
            return result
        self.misses += 1
        ids = [ticket.id for ticket in state]

        def work_at(session: Session) -> tuple[State, T]:
            states = load_states(session, ids)
            return tuple(states[id_] for id_ in ids), work(session)

        # The snapshot can be newer than the ticket: a mutation returns the ticket as it wrote it.
        found, result = await snapshot.load(work_at, is_long=is_long)
        self._keep((found, question), result, _ENTRY_BYTES * len(ids) + size_of(result))
        return result

    def _keep(self, key: Hashable, result: object, size: int) -> None:
        if size > self.max_bytes or key in self._results:
            return
        self._results[key] = result, size
        self._bytes += size
        while self._bytes > self.max_bytes:
            _, (_, dropped) = self._results.popitem(last=False)
            self._bytes -= dropped
