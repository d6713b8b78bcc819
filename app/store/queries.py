"""Reads of many entries of a timeline: a page in an order, counts, revisions.

A page is found by its keys on an index, so that the last one costs what the first costs. A filter
is applied on the way: one that few entries pass reads many.
"""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import ColumnElement, false, func, or_, tuple_
from sqlmodel import select

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
from app.activity.state import ABSENT, Activity, Revision
from app.auth import Viewer
from app.store import rows
from app.store.database import Database

_COLUMNS = rows.ACTIVITY.c
_HISTORY = rows.CHANGE.c


async def load_page(
    database: Database, viewer: Viewer, listing: Listing, window: Window
) -> Page[Activity]:
    """Return one page of what the viewer sees."""
    is_ascending = _is_ascending(listing.order) is not window.is_backward
    statement = (
        select(*rows.ACTIVITY_COLUMNS)
        .where(*_listed(viewer, listing.ticket_id, listing.wanted, listing.order.field))
        .where(*_between(listing.order, window.after, window.before))
        .order_by(*(key.asc() if is_ascending else key.desc() for key in _keys(listing.order)))
        .limit(window.size + 1)
    )
    async with database.snapshot() as session:
        found = [Activity(*row) for row in await session.exec(statement)]
    items = found[: window.size]
    return Page(items[::-1] if window.is_backward else items, len(found) > window.size)


async def has_any(
    database: Database, viewer: Viewer, listing: Listing, *, side: Side, of: Position
) -> bool:
    """Tell whether anything is listed on one side of a position, itself included."""
    keys, end = tuple_(*_keys(listing.order)), (of.at, of.id)
    is_low = (side is Side.BEFORE) is _is_ascending(listing.order)
    statement = (
        select(_COLUMNS.id)
        .where(*_listed(viewer, listing.ticket_id, listing.wanted, listing.order.field))
        .where(keys <= end if is_low else keys >= end)
        .limit(1)
    )
    async with database.snapshot() as session:
        return (await session.exec(statement)).first() is not None


async def count_activities(
    database: Database, viewer: Viewer, ticket_id: UUID, wanted: Filter
) -> int:
    """Count what the viewer sees of a timeline: reads all of it."""
    statement = select(func.count()).where(
        *_listed(viewer, ticket_id, wanted, OrderField.CREATED_AT)
    )
    async with database.snapshot() as session:
        return (await session.exec(statement)).one()


async def load_revisions(
    database: Database, activities: Sequence[Activity], *, after: int, size: int
) -> list[list[Revision]]:
    """Return the revisions after a version of each activity, at most `size` each, oldest first."""
    ids = [activity.id for activity in activities]
    ticket_ids = {activity.ticket_id for activity in activities}
    statement = (
        select(*rows.REVISION_COLUMNS)
        .where(_HISTORY.ticket_id.in_(ticket_ids), _HISTORY.activity_id.in_(ids))
        # Versions have no gaps, so this is the page of every one of them.
        .where(_HISTORY.version > after, _HISTORY.version <= after + size)
        .order_by(_HISTORY.version)
    )
    revisions: dict[UUID, list[Revision]] = {id_: [] for id_ in ids}
    async with database.snapshot() as session:
        for row in await session.exec(statement):
            revisions[row[0]].append(Revision(*row))
    return [revisions[id_] for id_ in ids]


def _listed(
    viewer: Viewer, ticket_id: UUID, wanted: Filter, index: OrderField
) -> list[ColumnElement[bool]]:
    """Say `policy.can_see` and the filter in SQL, for a statement that reads along an index."""
    conditions = [_COLUMNS.ticket_id == ticket_id, _COLUMNS.deleted_at.is_(None)]
    if not sees_all_private(viewer):
        conditions.append(or_(_COLUMNS.is_private.is_(False), _COLUMNS.actor_id == viewer.actor_id))
    return conditions + _created(wanted, index) + _filtered(wanted)


def _filtered(wanted: Filter) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if wanted.types is not None:
        conditions.append(_COLUMNS.activity_type.in_(sorted(wanted.types)))
    if wanted.actor_id is not ABSENT:
        conditions.append(_COLUMNS.actor_id.is_not_distinct_from(wanted.actor_id))
    if wanted.is_private is not None:
        conditions.append(_COLUMNS.is_private.is_(wanted.is_private))
    folded = func.casefold(_COLUMNS.message)
    return conditions + [func.instr(folded, word) > 0 for word in wanted.words]


def _created(wanted: Filter, index: OrderField) -> list[ColumnElement[bool]]:
    conditions = [
        *([_COLUMNS.created_at >= wanted.since] if wanted.since is not None else []),
        *([_COLUMNS.created_at < wanted.until] if wanted.until is not None else []),
    ]
    if index is OrderField.CREATED_AT:
        return conditions
    # Out of the planner's sight: it would take the other index, and sort all that it finds there.
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
