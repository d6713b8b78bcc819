"""The statements that read: by ids, a page of a timeline in an order, counts, revisions, changes.

A page is found by its position on an index, so the last page costs as much as the first. A filter
is applied to the entries on the way: if few of them pass, many are read.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    Column,
    ColumnElement,
    Text,
    bindparam,
    case,
    cast,
    false,
    func,
    or_,
    tuple_,
)
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
from app.activity.policy import forgotten_seq, sees_all_private
from app.activity.state import (
    ABSENT,
    Activity,
    ChangeType,
    Key,
    Redaction,
    Revision,
    Ticket,
    TicketState,
)
from app.activity.visible_changes import RecordedChange
from app.auth import Viewer
from app.errors import CursorExpired
from app.store import rows
from app.store.errors import DatabaseUnusable
from app.store.parameters import are_among, is_among
from app.store.text_search import holds_words

_COLUMNS = rows.ACTIVITY.c
_HISTORY = rows.CHANGE.c
_PREVIOUS_CHANGE = rows.CHANGE.alias("previous")
_PREVIOUS = _PREVIOUS_CHANGE.c

FEED_PAGE_SIZE: Final = 100
FEED_PAGE_CHARACTERS: Final = 256 * 1024
"""A page of the feed ends with the change that exceeds this, which bounds its memory."""

_TICKETS = select(*rows.TICKET_COLUMNS).where(is_among(rows.TICKET.c.id, "ids"))
_ACTIVITIES = (
    select(*rows.ACTIVITY_COLUMNS)
    .join_from(
        rows.NODE,
        rows.ACTIVITY,
        (rows.ACTIVITY.c.ticket_id == rows.NODE.c.ticket_id)
        & (rows.ACTIVITY.c.id == rows.NODE.c.id),
    )
    .where(is_among(rows.NODE.c.id, "ids"))
)


_STATE_COLUMNS: tuple[Column[Any], ...] = (
    rows.TICKET.c.id,
    rows.TICKET.c.last_seq,
    rows.TICKET.c.edition,
    rows.TICKET.c.forgotten_seq,
    rows.TICKET.c.forgotten_public_seq,
)
_STATES = select(*_STATE_COLUMNS).where(is_among(rows.TICKET.c.id, "ids"))
_CHANGES = (
    select(  # type: ignore[call-overload]
        _HISTORY.seq,
        _HISTORY.change_type,
        _HISTORY.was_private,
        _PREVIOUS.message.label("message_before"),
        _COLUMNS.is_private.label("is_private_now"),
        _COLUMNS.deleted_at.label("deleted_now"),
        (
            func.coalesce(func.length(_HISTORY.message), 0)
            + func.coalesce(func.length(_PREVIOUS.message), 0)
            + func.length(cast(_HISTORY.metadata, Text))
        ).label("characters"),
        func.coalesce(_HISTORY.recorded_at, _HISTORY.changed_at).label("recorded_at"),
        # The activity after the change: what no update changes, and the rest from the history.
        _COLUMNS.ticket_id,
        _COLUMNS.id,
        _COLUMNS.activity_type,
        _HISTORY.is_private,
        _COLUMNS.created_at,
        _COLUMNS.actor_id,
        _HISTORY.message,
        _HISTORY.metadata,
        _COLUMNS.document_id,
        _HISTORY.version,
        _HISTORY.changed_at,
        _HISTORY.changed_by_id,
        case((_HISTORY.change_type == ChangeType.REMOVED, _HISTORY.changed_at)).label("deleted_at"),
        _COLUMNS.redacted_version,
        _COLUMNS.first_version,
    )
    .join_from(
        rows.CHANGE,
        rows.ACTIVITY,
        (_COLUMNS.ticket_id == _HISTORY.ticket_id) & (_COLUMNS.id == _HISTORY.activity_id),
    )
    .outerjoin(
        _PREVIOUS_CHANGE,
        (_PREVIOUS.ticket_id == _HISTORY.ticket_id)
        & (_PREVIOUS.activity_id == _HISTORY.activity_id)
        & (_PREVIOUS.version == _HISTORY.version - 1),
    )
    .where(_HISTORY.ticket_id == bindparam("ticket_id"), _HISTORY.seq > bindparam("after"))
    .order_by(_HISTORY.seq)
    .limit(bindparam("size"))
)


_REDACTIONS = (
    select(*rows.REDACTION_COLUMNS)
    .join_from(
        rows.ACTIVITY,
        rows.CHANGE,
        (_HISTORY.ticket_id == _COLUMNS.ticket_id)
        & (_HISTORY.activity_id == _COLUMNS.id)
        & (_HISTORY.version == _COLUMNS.redacted_version),
    )
    .where(are_among(_COLUMNS.ticket_id, _COLUMNS.id, "keys"))
)


_KEYED = select(*rows.ACTIVITY_COLUMNS).where(are_among(_COLUMNS.ticket_id, _COLUMNS.id, "keys"))


def _merged() -> Any:
    """Return the statement that follows merges. UNION ends it where there is a circle."""
    into = rows.TICKET.c.merged_into_id
    columns = _STATE_COLUMNS
    first = select(*columns).where(into == bindparam("ticket_id")).cte("merged", recursive=True)
    merged = first.union(select(*columns).join(first, into == first.c.id))
    return (
        select(*merged.c)
        .where(merged.c.id != bindparam("ticket_id"))
        .order_by(merged.c.id)
        .limit(bindparam("size"))
    )


_MERGED = _merged()


def load_tickets(session: Session, ids: Sequence[UUID]) -> dict[UUID, Ticket]:
    """Return the tickets that exist."""
    return {row[0]: Ticket(*row) for row in session.exec(_TICKETS, params={"ids": ids})}


def load_activities(session: Session, ids: Sequence[UUID]) -> dict[UUID, Activity]:
    """Return the entries that exist. The caller checks whether the viewer may see them."""
    found = [Activity(*row) for row in session.exec(_ACTIVITIES, params={"ids": ids})]
    return {activity.id: activity for activity in found}


def load_states(session: Session, ids: Sequence[UUID]) -> dict[UUID, TicketState]:
    """Return the state of each ticket that exists."""
    return {row[0]: TicketState(*row) for row in session.exec(_STATES, params={"ids": ids})}


def load_changes(
    session: Session, ticket_id: UUID, *, after: int, size: int = FEED_PAGE_SIZE
) -> list[RecordedChange]:
    """Return changes of a ticket after a `seq`, the oldest first.

    There are fewer than `size` if there are no more, or if their texts are large.
    """
    found: list[RecordedChange] = []
    characters = 0
    parameters = {"ticket_id": ticket_id, "after": after, "size": size}
    for row in session.exec(_CHANGES, params=parameters):
        found.append(_recorded_change(row))
        characters += found[-1].characters
        if characters > FEED_PAGE_CHARACTERS:
            break
    return found


def load_kept_changes(
    session: Session, viewer: Viewer, ticket_id: UUID, *, after: int
) -> list[RecordedChange]:
    """As `load_changes`. Raises CursorExpired where changes of the viewer's were removed."""
    state = load_states(session, [ticket_id])[ticket_id]
    if after < forgotten_seq(viewer, state):
        raise CursorExpired
    return load_changes(session, ticket_id, after=after)


@dataclass(frozen=True, slots=True)
class News:
    """A page of a ticket's changes after a `seq`; None where some of those were removed."""

    state: TicketState
    changes: list[RecordedChange] | None

    @property
    def is_full(self) -> bool:
        """Whether more changes may follow."""
        page = self.changes or ()
        characters = sum(change.characters for change in page)
        return len(page) >= FEED_PAGE_SIZE or characters > FEED_PAGE_CHARACTERS


def load_news(session: Session, after: Mapping[UUID, int]) -> dict[UUID, News]:
    """Return what became of each ticket after its `seq`."""
    return {
        id_: News(state, _news(session, state, after[id_]))
        for id_, state in load_states(session, list(after)).items()
    }


def _news(session: Session, state: TicketState, after: int) -> list[RecordedChange] | None:
    if after < state.forgotten_seq:
        return None
    return load_changes(session, state.id, after=after) if after < state.seq else []


def _recorded_change(row: Sequence[Any]) -> RecordedChange:
    seq, change_type, was_private, message, is_private_now, deleted_now, *rest = row
    characters, recorded_at, *columns = rest
    activity, before = Activity(*columns), None
    if was_private is not None:
        before = replace(activity, is_private=was_private, message=message, deleted_at=None)
    is_private_now = None if deleted_now else is_private_now
    return RecordedChange(
        seq, change_type, activity, before, is_private_now, characters, recorded_at
    )


def load_valid_since(session: Session) -> datetime | None:
    """Return the time before which feed cursors have expired, None if they never do."""
    statement = select(rows.CURSOR_KEY.c.valid_since).where(rows.CURSOR_KEY.c.id == 1)
    return session.exec(statement).first()


def load_cursor_key(session: Session) -> bytes:
    """Return the key that the migration made. Raises DatabaseUnusable where it is gone."""
    key = session.exec(select(rows.CURSOR_KEY.c.key)).first()
    if key is None:
        raise DatabaseUnusable("The database lacks its key of feed cursors; restore a backup.")
    return bytes(key)


def has_tickets(session: Session) -> bool:
    return session.exec(select(rows.TICKET.c.id).limit(1)).first() is not None


def load_merged(session: Session, ticket_id: UUID, *, size: int) -> list[TicketState]:
    """Return the tickets merged into one, also by way of others.

    There are at most `size`, in the order of their ids.
    """
    found = session.exec(_MERGED, params={"ticket_id": ticket_id, "size": size})
    return [TicketState(*row) for row in found]


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


def load_revisions(
    session: Session, activities: Sequence[Activity], *, after: int, size: int
) -> list[list[Revision]]:
    """Return the revisions after a version of each activity, at most `size` each, oldest first."""
    ids = [activity.id for activity in activities]
    ticket_ids = {activity.ticket_id for activity in activities}
    # Versions have no gaps from the first one that is kept, so this selects one page of each.
    last = size + case((_COLUMNS.first_version > after, _COLUMNS.first_version - 1), else_=after)
    statement = (
        select(*rows.REVISION_COLUMNS)
        .join_from(
            rows.ACTIVITY,
            rows.CHANGE,
            (_HISTORY.ticket_id == _COLUMNS.ticket_id) & (_HISTORY.activity_id == _COLUMNS.id),
        )
        .where(_COLUMNS.ticket_id.in_(ticket_ids), _COLUMNS.id.in_(ids))
        .where(_HISTORY.version > after, _HISTORY.version <= last)
        .order_by(_HISTORY.version)
    )
    revisions: dict[UUID, list[Revision]] = {id_: [] for id_ in ids}
    for row in session.exec(statement):
        revisions[row[0]].append(Revision(*row))
    return [revisions[id_] for id_ in ids]


def load_redactions(session: Session, activities: Sequence[Activity]) -> list[Redaction | None]:
    """Return the last redaction of each activity, None where there was none."""
    keys = [activity.key for activity in activities]
    found = {row[0]: Redaction(*row) for row in session.exec(_REDACTIONS, params={"keys": keys})}
    return [found.get(activity.id) for activity in activities]


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
