"""Pages of a timeline: what is asked for, and where in the order a cursor points."""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Final, Generic, TypeVar
from uuid import UUID

from app.activity.input_limits import fault_in_text
from app.activity.state import ABSENT, AbsentType, Activity, ActivityType
from app.activity.values import from_milliseconds, to_milliseconds
from app.errors import InvalidInput

MAX_PAGE_SIZE: Final = 100
DEFAULT_PAGE_SIZE: Final = 20
MAX_TEXT_LENGTH: Final = 200

T = TypeVar("T")


class OrderField(Enum):
    """The values are the columns, and mark whose cursors they are."""

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
    """A place in an order, whether or not an entry is there (any more)."""

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
        """What must all be in the message, in any case and order, whole words or parts of them."""
        return (self.text or "").casefold().split()


@dataclass(frozen=True, slots=True)
class Listing:
    """The entries of a ticket that pass a filter, in an order: what pages are pages of."""

    ticket_id: UUID
    wanted: Filter
    order: Order


@dataclass(frozen=True, slots=True)
class Window:
    """`size` entries of an order after a position, or before one and then counted from the end."""

    size: int
    after: Position | None = None
    before: Position | None = None
    is_backward: bool = False


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """The entries of a window, in the order asked for. `has_more` looks in its direction."""

    items: list[T]
    has_more: bool


_CURSOR = re.compile(r"(created_at|updated_at) (-?\d{1,15}) ([0-9a-f]{32})", re.ASCII)


def make_cursor(order: Order, activity: Activity) -> str:
    at = activity.created_at if order.field is OrderField.CREATED_AT else activity.updated_at
    text = f"{order.field.value} {to_milliseconds(at)} {activity.id.hex}"
    return urlsafe_b64encode(text.encode()).decode()


def parse_cursor(order: Order, cursor: str | None, name: str) -> Position | None:
    """Read a cursor of that order. Raises InvalidInput at `name`."""
    if cursor is None:
        return None
    match = _CURSOR.fullmatch(decode_cursor(cursor))
    if not match or match[1] != order.field.value:
        raise InvalidInput(
            f"{name} is not a cursor of this connection in this order.", path=(name,)
        )
    try:
        return Position(from_milliseconds(int(match[2])), UUID(match[3]))
    except OverflowError:
        raise InvalidInput(f"{name} is not a cursor of this connection.", path=(name,)) from None


def decode_cursor(cursor: str) -> str:
    """Undo the base64 of a cursor; what was none becomes the empty text."""
    try:
        return urlsafe_b64decode(cursor.encode()).decode()
    except ValueError:
        return ""


def parse_window(
    order: Order, first: int | None, after: str | None, last: int | None, before: str | None
) -> Window:
    """Read the arguments of a Relay connection. Raises InvalidInput."""
    if first is not None and last is not None:
        raise InvalidInput("first and last exclude each other.", path=("last",))
    name, size = ("last", last) if last is not None else ("first", first)
    return Window(
        size=parse_size(size, name),
        after=parse_cursor(order, after, "after"),
        before=parse_cursor(order, before, "before"),
        is_backward=last is not None,
    )


def parse_size(size: int | None, name: str) -> int:
    """Read a page size; the default where none is given. Raises InvalidInput at `name`."""
    if size is None:
        return DEFAULT_PAGE_SIZE
    if not 0 <= size <= MAX_PAGE_SIZE:
        raise InvalidInput(f"{name} is {size}; it must be 0 to {MAX_PAGE_SIZE}.", path=(name,))
    return size


def check_filter(wanted: Filter) -> None:
    """Raise InvalidInput for a text that costs too much to look for, or that no message holds."""
    if wanted.text is not None and len(wanted.text) > MAX_TEXT_LENGTH:
        raise InvalidInput(
            f"text has {len(wanted.text)} characters; the limit is {MAX_TEXT_LENGTH}.",
            path=("filter", "text"),
        )
    if wanted.text is not None and (fault := fault_in_text(wanted.text)):
        raise InvalidInput(f"text {fault}.", path=("filter", "text"))
