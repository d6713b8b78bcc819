"""The statements on idempotency keys.

The row of a key is a lock: a unit of work claims it first of all, and so waits for another process
that carries out the same request.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import bindparam, delete, func, text, update
from sqlmodel import Session, col, select

from app.activity.idempotency import REPEATABLE, Answer, KeyedRequest, Step
from app.activity.outcomes import Outcome
from app.activity.policy import can_see
from app.activity.state import Activity, ChangeType, Ticket
from app.auth import Viewer
from app.errors import IdempotencyKeyReused, NotFound, UserError, VersionConflict, user_error
from app.models import NOT_FORGOTTEN
from app.store import rows
from app.store.bulk import insert_rows, leave, update_rows
from app.store.parameters import are_among

_KEY = rows.IDEMPOTENCY_KEY.c
_ROWS = (
    select(  # type: ignore[call-overload]
        _KEY.owner,
        _KEY.key,
        _KEY.fingerprint,
        _KEY.verdicts,
        _KEY.is_forgotten,
        *rows.ANSWER_COLUMNS,
    )
    .where(are_among(_KEY.owner, _KEY.key, "keys"))
    .order_by(_KEY.owner, _KEY.key)
)
_EXPIRED = (
    select(_KEY.owner, _KEY.key)
    .where(_KEY.created_at <= bindparam("before"))
    .order_by(_KEY.created_at)
    .limit(bindparam("size"))
)
_DELETE = delete(rows.IDEMPOTENCY_KEY).where(are_among(_KEY.owner, _KEY.key, "keys"))
_FULL = select(_KEY.owner).group_by(_KEY.owner).having(func.count() >= bindparam("maximum"))
_KEPT = (
    select(_KEY.owner, _KEY.key)
    .where(text(NOT_FORGOTTEN))
    .order_by(_KEY.owner, _KEY.key)
    .limit(bindparam("size"))
    .with_for_update(skip_locked=True)
)
_COUNT_KEPT = select(func.count()).select_from(rows.IDEMPOTENCY_KEY).where(text(NOT_FORGOTTEN))
_FORGET = update(rows.IDEMPOTENCY_KEY).values(
    status=None, headers=None, body=None, is_forgotten=True
)
_FORGET_ALL = _FORGET.where(text(NOT_FORGOTTEN))
_FORGET_SOME = _FORGET.where(are_among(_KEY.owner, _KEY.key, "keys"))
_VERSION = select(
    rows.CHANGE.c.change_type,
    rows.CHANGE.c.changed_at,
    rows.CHANGE.c.changed_by_id,
    *rows.CONTENT_COLUMNS,
).where(
    rows.CHANGE.c.ticket_id == bindparam("ticket_id"),
    rows.CHANGE.c.activity_id == bindparam("activity_id"),
    rows.CHANGE.c.version == bindparam("version"),
)

_Verdict = Outcome | Exception


@dataclass(slots=True, eq=False)
class _Row:
    fingerprint: bytes
    verdicts: dict[str, Any]
    is_forgotten: bool
    answer: Answer | None
    is_changed: bool = False


@dataclass(slots=True, eq=False)
class Keys:
    """The keys that the steps of one unit of work name, claimed until its COMMIT."""

    session: Session
    rows: Mapping[tuple[str, str], _Row]
    max_answer_bytes: int
    _decided: dict[tuple[str, str, int], _Verdict]

    @classmethod
    def claim(
        cls,
        session: Session,
        requested: Sequence[KeyedRequest],
        now: datetime,
        max_answer_bytes: int,
    ) -> "Keys":
        """Make the rows of keys that are new, lock all of them, and read them."""
        requests = {(request.owner, request.key): request for request in requested}
        # In the order of the keys, so that two processes cannot wait for each other.
        new = [_new_row(requests[name], now) for name in sorted(requests)]
        insert_rows(session, rows.IDEMPOTENCY_KEY, new, leave)
        found = session.exec(_ROWS.with_for_update(), params={"keys": list(requests)})
        return cls(session, {(row[0], row[1]): _row(row) for row in found}, max_answer_bytes, {})

    def settle(self, step: Step, viewer: Viewer, decide: Callable[[], _Verdict]) -> _Verdict:
        """Return what a step came to before, or else what `decide` returns, and keep that."""
        name = step.request.owner, step.request.key
        row = self.rows[name]
        if row.fingerprint != step.request.fingerprint:
            return IdempotencyKeyReused()
        verdict = self._known(row, (*name, step.number), viewer) or decide()
        if isinstance(verdict, REPEATABLE):
            self._keep(row, (*name, step.number), verdict)
            if step.answer_of:
                step.answer = self._keep_answer(row, step.answer_of(verdict))
        return verdict

    def begin(self, step: Step) -> bool:
        """Note that a step that is no command is carried out. Return False if it was before.

        Raises IdempotencyKeyReused.
        """
        row = self.rows[step.request.owner, step.request.key]
        if row.fingerprint != step.request.fingerprint:
            raise IdempotencyKeyReused
        number = str(step.number)
        is_new = number not in row.verdicts
        if is_new:
            row.verdicts[number] = {"isDone": True}
            row.is_changed = True
        return is_new

    def store(self) -> None:
        """Write what is new in the rows."""
        changed = [_update(name, row) for name, row in self.rows.items() if row.is_changed]
        update_rows(self.session, rows.IDEMPOTENCY_KEY, changed)

    def keep_answer(self, request: KeyedRequest, answer: Answer) -> Answer:
        """Keep the answer to a request, unless there is one. Return the one that is kept."""
        row = self.rows[request.owner, request.key]
        return self._keep_answer(row, answer) if row.fingerprint == request.fingerprint else answer

    def _known(self, row: _Row, place: tuple[str, str, int], viewer: Viewer) -> _Verdict | None:
        if decided := self._decided.get(place):
            # The changes belong to the job that made them, in the same unit of work.
            return replace(decided, changes=()) if isinstance(decided, Outcome) else decided
        record = row.verdicts.get(str(place[2]))
        return _verdict(self.session, record, viewer) if record else None

    def _keep(self, row: _Row, place: tuple[str, str, int], verdict: _Verdict) -> None:
        number = str(place[2])
        if number not in row.verdicts:
            row.verdicts[number] = _record(verdict)
            row.is_changed = True
        self._decided.setdefault(place, verdict)

    def _keep_answer(self, row: _Row, answer: Answer) -> Answer:
        """Return the answer that is kept; one that is too large is not."""
        is_small = len(answer.body) <= self.max_answer_bytes
        if row.answer is None and is_small and not row.is_forgotten:
            row.answer, row.is_changed = answer, True
        return row.answer or answer


def load_answer(session: Session, request: KeyedRequest) -> Answer | None:
    """Return the answer that is kept, if there is one. Raises IdempotencyKeyReused."""
    row = _find(session, request)
    return row.answer if row else None


def has_come_before(session: Session, request: KeyedRequest) -> bool:
    """Return whether a request is a repeat, with or without an answer that is kept.

    Raises IdempotencyKeyReused.
    """
    return _find(session, request) is not None


def _find(session: Session, request: KeyedRequest) -> _Row | None:
    found = session.exec(_ROWS, params={"keys": [(request.owner, request.key)]})
    row = next(map(_row, found), None)
    if row and row.fingerprint != request.fingerprint:
        raise IdempotencyKeyReused
    return row


def delete_expired(session: Session, before: datetime, size: int) -> int:
    """Delete the oldest keys claimed until a time; return how many, at most `size`."""
    expired = session.exec(_EXPIRED, params={"before": before, "size": size})
    keys = [(row[0], row[1]) for row in expired]
    if keys:
        session.exec(_DELETE, params={"keys": keys})
    return len(keys)


def find_full_owners(session: Session, maximum: int) -> frozenset[str]:
    """Return the owners who have that many keys or more."""
    return frozenset(session.exec(_FULL, params={"maximum": maximum}))


def hold_keys(session: Session) -> None:
    """Let no other process claim or change a key until the end of the transaction.

    What redacts does so first of all, before it locks a ticket: whoever has claimed a key waits for
    tickets. A key that was claimed after `forget_answers` would keep its answer, which may have
    been read before the COMMIT.
    """
    _lock(session, "SHARE ROW EXCLUSIVE")  # the weakest mode that also keeps two of these apart


def _lock(session: Session, mode: str) -> None:
    if session.get_bind().dialect.name == "postgresql":
        lock = f"LOCK TABLE idempotency_key IN {mode} MODE"
        session.connection().exec_driver_sql(lock).close()


def forget_answers(session: Session) -> None:
    """Remove all answers, for good: any of them may show what is redacted.

    Also one under a key that is older than the entry: a request may create the entry, or be
    answered, long after it claimed its key. The outcomes of the steps stay, so a repeat has no
    effect and is answered anew. An answer that is on its way is not kept when it comes.
    """
    hold_keys(session)
    session.exec(_FORGET_ALL)


def count_answers(session: Session) -> int:
    """Count the keys of which `forget_answers` would remove the answers."""
    return session.exec(_COUNT_KEPT).one()


def forget_some_answers(session: Session, size: int) -> int:
    """Remove some of the answers, as `forget_answers` does; return of how many keys.

    Not of keys that others have claimed at this moment.
    """
    _lock(session, "ROW EXCLUSIVE")  # that of the UPDATE, before rows that others may wait for
    keys = [(row[0], row[1]) for row in session.exec(_KEPT, params={"size": size})]
    if keys:
        session.exec(_FORGET_SOME, params={"keys": keys})
    return len(keys)


def _new_row(request: KeyedRequest, now: datetime) -> dict[str, Any]:
    return {
        "owner": request.owner,
        "key": request.key,
        "actor_id": request.actor_id,
        "fingerprint": request.fingerprint,
        "created_at": now,
        "verdicts": {},
        "is_forgotten": False,
    }


def _row(row: Any) -> _Row:
    _, _, fingerprint, verdicts, is_forgotten, status, headers, body = row
    answer = Answer(status, headers, body) if status is not None else None
    return _Row(fingerprint, verdicts, is_forgotten, answer)


def _update(name: tuple[str, str], row: _Row) -> dict[str, Any]:
    answer = row.answer
    return {
        "key_owner": name[0],
        "key_key": name[1],
        "verdicts": row.verdicts,
        "status": answer.status if answer else None,
        "headers": dict(answer.headers) if answer else None,
        "body": answer.body if answer else None,
    }


# What a step came to, as JSON. What an entry held is not copied: the history has it.


def _record(verdict: _Verdict) -> dict[str, Any]:
    if isinstance(verdict, Outcome):
        return _reference(verdict.activity)
    if not isinstance(verdict, UserError):
        raise TypeError("only outcomes and expected errors are kept")
    current = verdict.current if isinstance(verdict, VersionConflict) else None
    return {
        "code": verdict.code,
        "message": verdict.message,
        "path": list(verdict.path),
        "reasons": list(getattr(verdict, "reasons", ())),
        "current": _reference(current) if current else None,
    }


def _reference(activity: Activity) -> dict[str, Any]:
    return {
        "ticketId": str(activity.ticket_id),
        "activityId": str(activity.id),
        "version": activity.version,
    }


def _verdict(session: Session, record: dict[str, Any], viewer: Viewer) -> _Verdict:
    if "code" not in record:
        activity = _load_version(session, record, viewer)
        if activity is None:
            gone = record["version"], record["activityId"]
            return NotFound("Version {} of the activity {} is not kept any more.".format(*gone))
        ticket = session.exec(
            select(*rows.TICKET_COLUMNS).where(col(rows.TICKET.c.id) == activity.ticket_id)
        ).one()
        return Outcome(Ticket(*ticket), activity)
    current = record["current"]
    return user_error(
        record["code"],
        record["message"],
        path=tuple(record["path"]),
        reasons=record["reasons"],
        current=_load_version(session, current, viewer) if current else None,
    )


def _load_version(session: Session, reference: dict[str, Any], viewer: Viewer) -> Activity | None:
    """Return an entry as it was at a version, as far as the history still has it, else None.

    Who does not see it any more is not told that it was redacted since.
    """
    ticket_id, id_ = UUID(reference["ticketId"]), UUID(reference["activityId"])
    row = session.exec(
        select(*rows.ACTIVITY_COLUMNS).where(
            rows.ACTIVITY.c.ticket_id == ticket_id, rows.ACTIVITY.c.id == id_
        )
    ).first()
    if row is None:
        return None
    now, version = Activity(*row), reference["version"]
    if now.version == version:
        return now
    key = {"ticket_id": ticket_id, "activity_id": id_, "version": version}
    change = session.exec(_VERSION, params=key).first()
    if change is None:
        return None
    type_, at, by_id, message, metadata, is_private = change
    return now._replace(
        version=version,
        message=message,
        metadata=metadata,
        is_private=is_private,
        updated_at=at,
        updated_by_id=by_id,
        deleted_at=at if type_ is ChangeType.REMOVED else None,
        redacted_version=now.redacted_version if can_see(viewer, now) else None,
    )
