"""Reads the arguments of Relay connections: `first`, `after`, `last`, `before`."""

from typing import Final

from app.activity.cursors import parse_cursor
from app.activity.listing import Order, Window
from app.errors import InvalidInput

MAX_PAGE_SIZE: Final = 100
DEFAULT_PAGE_SIZE: Final = 20


def parse_window(
    order: Order, first: int | None, after: str | None, last: int | None, before: str | None
) -> Window:
    """Read the arguments of a page of a listing. Raises InvalidInput."""
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
    """Return a page size, the default where none is given. Raises InvalidInput at `name`."""
    if size is None:
        return DEFAULT_PAGE_SIZE
    if not 0 <= size <= MAX_PAGE_SIZE:
        raise InvalidInput(f"{name} is {size}; it must be 0 to {MAX_PAGE_SIZE}.", path=(name,))
    return size
