"""The statements that read timelines: a page in an order, what lies beside it, counts.

A page is found by its position on an index, so the last page costs as much as the first. A filter
is applied to the entries on the way: if few of them pass, many are read.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, false, func, or_, tuple_
from sqlmodel import Session, select

from app.activity.listing import (
    Direction,
    Filter,
    Listing,
    Order,
    OrderField,
    Page,
    Position,
    Side,
    Window,
)
from app.activity.policy import sees_all_private
from app.activity.state import ABSENT, Activity, Key
from app.auth import Viewer
from app.store import rows
from app.store.parameters import are_among
from app.store.text_search import holds_words

_COLUMNS = rows.ACTIVITY.c
_KEYED = select(*rows.ACTIVITY_COLUMNS).where(are_among(_COLUMNS.ticket_id, _COLUMNS.id, "keys"))


def load_page(session: Session, viewer: Viewer, listing: Listing, window: Window) -> Page[Activity]:
    """Return one page of what the viewer sees."""
    if listing.merged:
        found = _load_keyed(session, _page_keys(session, viewer, listing, window))
    else:
        page = _page_of(rows.ACTIVITY_COLUMNS, viewer, listing, listing.ticket_id, window)
        found = [Activity(*row) for row in session.exec(page)]
    items = found[: window.size]
    return Page(items[::-1] if window.is_backward else items, len(found) > window.size)


def _page_keys(session: Session, viewer: Viewer, listing: Listing, window: Window) -> list[Key]:
    """Return which entries are on a page of several timelines, and the one after it.

    Each timeline is read along its index. Only the keys are, since most entries are dropped again.
    """
    columns = (*_keys(listing.order), _COLUMNS.ticket_id)
    found = [
        tuple(row)
        for ticket_id in listing.ticket_ids
        for row in session.exec(_page_of(columns, viewer, listing, ticket_id, window))
    ]
    found.sort(reverse=_is_ascending(listing.order) is window.is_backward)
    return [(ticket_id, id_) for _, id_, ticket_id in found[: window.size + 1]]


def _load_keyed(session: Session, keys: Sequence[Key]) -> list[Activity]:
    """Return entries in the order of their keys."""
    loaded = [Activity(*row) for row in session.exec(_KEYED, params={"keys": keys})]
    by_key = {activity.key: activity for activity in loaded}
    return [by_key[key] for key in keys]


def _page_of(
    columns: Sequence[ColumnElement[Any]],
    viewer: Viewer,
    listing: Listing,
    ticket_id: UUID,
    window: Window,
) -> Any:
    """Return the statement of a page of one timeline, and of the entry after it."""
    is_ascending = _is_ascending(listing.order) is not window.is_backward
    return (
        select(*columns)
        .where(*_listed(viewer, ticket_id, listing.wanted, listing.order.field))
        .where(*_between(listing.order, window.after, window.before))
        .order_by(*(key.asc() if is_ascending else key.desc() for key in _keys(listing.order)))
        .limit(window.size + 1)
    )


def has_any(
    session: Session, viewer: Viewer, listing: Listing, *, side: Side, of: Position
) -> bool:
    """Return whether anything is listed on one side of a position, or at it."""
    keys, end = tuple_(*_keys(listing.order)), (of.at, of.id)
    is_low = (side is Side.BEFORE) is _is_ascending(listing.order)
    statements = (
        select(_COLUMNS.id)
        .where(*_listed(viewer, ticket_id, listing.wanted, listing.order.field))
        .where(keys <= end if is_low else keys >= end)
        .limit(1)
        for ticket_id in listing.ticket_ids
    )
    return any(session.exec(statement).first() is not None for statement in statements)


def count_activities(session: Session, viewer: Viewer, listing: Listing) -> int:
    """Count what the viewer sees of a listing: without a filter from an index alone."""
    statements = (
        select(func.count()).where(
            *_listed(viewer, ticket_id, listing.wanted, OrderField.CREATED_AT)
        )
        for ticket_id in listing.ticket_ids
    )
    return sum(session.exec(statement).one() for statement in statements)


def _listed(
    viewer: Viewer, ticket_id: UUID, wanted: Filter, index: OrderField
) -> list[ColumnElement[bool]]:
    """Return the conditions of a listing, for a statement that reads along an index."""
    conditions = [_COLUMNS.ticket_id == ticket_id, *visible_to(viewer)]
    return conditions + _created(wanted, index) + _filtered(wanted)


def visible_to(viewer: Viewer) -> list[ColumnElement[bool]]:
    """Return `policy.can_see` in SQL. `tests/test_visibility.py` holds the two together."""
    conditions: list[ColumnElement[bool]] = [_COLUMNS.deleted_at.is_(None)]
    if not sees_all_private(viewer):
        conditions.append(or_(_COLUMNS.is_private.is_(False), _COLUMNS.actor_id == viewer.actor_id))
    return conditions


def _filtered(wanted: Filter) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if wanted.types is not None:
        conditions.append(_COLUMNS.activity_type.in_(sorted(wanted.types)))
    if wanted.actor_id is not ABSENT:
        conditions.append(_COLUMNS.actor_id.is_not_distinct_from(wanted.actor_id))
    if wanted.is_private is not None:
        conditions.append(_COLUMNS.is_private.is_(wanted.is_private))
    if wanted.words:
        conditions.append(holds_words(_COLUMNS.message, wanted.words))
    return conditions


def _created(wanted: Filter, index: OrderField) -> list[ColumnElement[bool]]:
    conditions = [
        *([_COLUMNS.created_at >= wanted.since] if wanted.since is not None else []),
        *([_COLUMNS.created_at < wanted.until] if wanted.until is not None else []),
    ]
    if index is OrderField.CREATED_AT:
        return conditions
    # `coalesce` hides the conditions from the planner, which would else use the other index and
    # sort all the rows that it finds there.
    return [func.coalesce(condition, false()) for condition in conditions]


def _keys(order: Order) -> tuple[ColumnElement[object], ColumnElement[object]]:
    return _COLUMNS[order.field.value], _COLUMNS.id


def _is_ascending(order: Order) -> bool:
    return order.direction is Direction.ASC


def _between(
    order: Order, after: Position | None, before: Position | None
) -> list[ColumnElement[bool]]:
    low, high = (after, before) if _is_ascending(order) else (before, after)
    keys = tuple_(*_keys(order))
    return [
        *([keys > (low.at, low.id)] if low else []),
        *([keys < (high.at, high.id)] if high else []),
    ]
