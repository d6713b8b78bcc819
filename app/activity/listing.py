"""What a page of a timeline is: filter, order, position and size."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from functools import lru_cache
from typing import Final, Generic, TypeVar
from uuid import UUID

from app.activity.input_limits import fault_in_text
from app.activity.state import ABSENT, AbsentType, Activity, ActivityType, TicketState
from app.errors import InvalidInput

MAX_TEXT_LENGTH: Final = 200
MAX_TEXT_WORDS: Final = 10

T = TypeVar("T")


class OrderField(Enum):
    """The values are the names of the columns, and are part of cursors."""

    CREATED_AT = "created_at"
    UPDATED_AT = "updated_at"


class Direction(Enum):
    ASC = "asc"
    DESC = "desc"


class Side(Enum):
    BEFORE = "before"
    AFTER = "after"


@dataclass(frozen=True, slots=True)
class Order:
    """Ties are broken by the id, in the same direction."""

    field: OrderField = OrderField.CREATED_AT
    direction: Direction = Direction.ASC


@dataclass(frozen=True, slots=True)
class Position:
    """A position in an order. The entry that was there may be gone."""

    at: datetime
    id: UUID


@dataclass(frozen=True, slots=True)
class Filter:
    """What entries to list; None does not restrict. `since` is included, `until` is not.

    An `actor_id` of None lists what no actor made; ABSENT does not restrict.
    """

    types: frozenset[ActivityType] | None = None
    actor_id: UUID | AbsentType | None = ABSENT
    is_private: bool | None = None
    since: datetime | None = None
    until: datetime | None = None
    text: str | None = None

    @property
    def words(self) -> list[str]:
        """The texts that a message must all contain, in any order and case, also within words."""
        return list(dict.fromkeys((self.text or "").casefold().split()))

    def passes(self, activity: Activity) -> bool:
        """Return whether the entry is wanted; `store.listings` says the same in SQL."""
        return (
            (self.types is None or activity.activity_type in self.types)
            and (self.actor_id is ABSENT or activity.actor_id == self.actor_id)
            and (self.is_private is None or activity.is_private is self.is_private)
            and (self.since is None or activity.created_at >= self.since)
            and (self.until is None or activity.created_at < self.until)
            and (self.text is None or holds_words(_folded(activity.message), self.words))
        )


EVERYTHING: Final = Filter()


@dataclass(frozen=True, slots=True)
class Listing:
    """The list that pages are cut from: the entries of a ticket that pass a filter, in an order.

    `merged` are the tickets whose entries are listed too.
    """

    ticket: TicketState
    wanted: Filter
    order: Order
    merged: tuple[TicketState, ...] = ()

    @property
    def ticket_id(self) -> UUID:
        return self.ticket.id

    @property
    def ticket_ids(self) -> list[UUID]:
        return [ticket.id for ticket in self.state]

    @property
    def state(self) -> tuple[TicketState, ...]:
        """What names the state that is listed, for caches."""
        return (self.ticket, *self.merged)


@dataclass(frozen=True, slots=True)
class Window:
    """At most `size` entries: the first after a position, or the last before one."""

    size: int
    after: Position | None = None
    before: Position | None = None
    is_backward: bool = False


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Page(Generic[T]):
    """The entries of a window. `has_more`: there are others beyond it, in its direction."""

    items: list[T]
    has_more: bool


def holds_words(message: str, words: Sequence[str]) -> bool:
    """Return whether a message holds every word, all of them folded as `casefold` does."""
    return all(word in message for word in words)


@lru_cache(maxsize=8)
def _folded(message: str | None) -> str:
    """Fold the case of a message. It is cached: many subscribers may search the same message."""
    return (message or "").casefold()


def check_filter(wanted: Filter) -> None:
    """Raise InvalidInput for a text that is too long, has too many words or cannot be stored."""
    if wanted.text is not None and len(wanted.text) > MAX_TEXT_LENGTH:
        raise InvalidInput(
            f"text has {len(wanted.text)} characters; the limit is {MAX_TEXT_LENGTH}.",
            path=("filter", "text"),
        )
    if len(wanted.words) > MAX_TEXT_WORDS:
        raise InvalidInput(
            f"text has {len(wanted.words)} different words; the limit is {MAX_TEXT_WORDS}.",
            path=("filter", "text"),
        )
    if wanted.text is not None and (fault := fault_in_text(wanted.text)):
        raise InvalidInput(f"text {fault}.", path=("filter", "text"))
