"""The statements that read the history: the changes of a ticket, the revisions of an entry."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Text, bindparam, case, cast, func
from sqlmodel import Session, select

from app.activity.policy import forgotten_seq
from app.activity.state import Activity, ChangeType, Redaction, Revision, TicketState
from app.activity.visible_changes import RecordedChange
from app.auth import Viewer
from app.errors import CursorExpired
from app.store import rows
from app.store.errors import DatabaseUnusable
from app.store.parameters import are_among
from app.store.queries import load_states

_COLUMNS = rows.ACTIVITY.c
_HISTORY = rows.CHANGE.c
_PREVIOUS_CHANGE = rows.CHANGE.alias("previous")
_PREVIOUS = _PREVIOUS_CHANGE.c

FEED_PAGE_SIZE: Final = 100
FEED_PAGE_CHARACTERS: Final = 256 * 1024
"""A page of the feed ends with the change that exceeds this, which bounds its memory."""

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
        before = activity._replace(is_private=was_private, message=message, deleted_at=None)
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
