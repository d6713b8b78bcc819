"""Maps rows of the tables to values of the domain, and back."""

from dataclasses import fields
from typing import Any

from sqlalchemy import Column, Table
from sqlmodel import SQLModel

from app import models
from app.activity.actors import Actor
from app.activity.idempotency import Answer
from app.activity.state import Activity, Change, Content, Redaction, Revision, Ticket
from app.auth import IssuedToken


def _table(model: type[SQLModel]) -> Table:
    return SQLModel.metadata.tables[model.__tablename__]  # type: ignore[index]


TICKET: Table = _table(models.Ticket)
NODE: Table = _table(models.Node)
ACTIVITY: Table = _table(models.TicketActivity)
CHANGE: Table = _table(models.TicketActivityChange)
CURSOR_KEY: Table = _table(models.CursorKey)
TOKEN: Table = _table(models.AccessToken)
ACTOR: Table = _table(models.Actor)
ACTOR_ERASURE: Table = _table(models.ActorErasure)
IDEMPOTENCY_KEY: Table = _table(models.IdempotencyKey)


def _columns(table: Table, value: type[Any]) -> tuple[Column[Any], ...]:
    """Return the columns in the order of a value's fields, so that `Value(*row)` reads a row.

    Fields that no column holds come last and have a default.
    """
    names = getattr(value, "_fields", None) or [field.name for field in fields(value)]
    return tuple(table.c[name] for name in names if name in table.c)


TICKET_COLUMNS = _columns(TICKET, Ticket)
ACTIVITY_COLUMNS = _columns(ACTIVITY, Activity)
CONTENT_COLUMNS = _columns(CHANGE, Content)
REVISION_COLUMNS = _columns(CHANGE, Revision)
REDACTION_COLUMNS = _columns(CHANGE, Redaction)
TOKEN_COLUMNS = _columns(TOKEN, IssuedToken)
ACTOR_COLUMNS = _columns(ACTOR, Actor)
ANSWER_COLUMNS = _columns(IDEMPOTENCY_KEY, Answer)


def ticket_row(ticket: Ticket) -> dict[str, Any]:
    return {
        "id": ticket.id,
        "created_at": ticket.created_at,
        "last_seq": ticket.last_seq,
        "last_changed_at": ticket.last_changed_at,
        "merged_into_id": ticket.merged_into_id,
    }


def ticket_update(ticket: Ticket) -> dict[str, Any]:
    return {
        "key_id": ticket.id,
        "last_seq": ticket.last_seq,
        "last_changed_at": ticket.last_changed_at,
        "merged_into_id": ticket.merged_into_id,
    }


def activity_row(activity: Activity) -> dict[str, Any]:
    return {name: getattr(activity, name) for name in _ACTIVITY_NAMES}


_ACTIVITY_NAMES = Activity._fields


def activity_update(activity: Activity) -> dict[str, Any]:
    return {
        "key_ticket_id": activity.ticket_id,
        "key_id": activity.id,
        "is_private": activity.is_private,
        "message": activity.message,
        "metadata": activity.metadata,
        "version": activity.version,
        "updated_at": activity.updated_at,
        "updated_by_id": activity.updated_by_id,
        "deleted_at": activity.deleted_at,
        "redacted_version": activity.redacted_version,
    }


def change_row(change: Change) -> dict[str, Any]:
    activity = change.activity
    return {
        "ticket_id": activity.ticket_id,
        "seq": change.seq,
        "activity_id": activity.id,
        "version": activity.version,
        "change_type": change.change_type,
        "changed_at": activity.updated_at,
        "changed_by_id": activity.updated_by_id,
        "message": activity.message,
        "metadata": activity.metadata,
        "is_private": activity.is_private,
        "was_private": change.was_private,
        "reason": change.reason,
        "recorded_at": change.recorded_at,
        "recorded_by_id": change.recorded_by_id,
    }


def erasure(redaction: Change) -> dict[str, Any]:
    """Return the parameters that name the versions before a redaction."""
    return {
        "key_ticket_id": redaction.activity.ticket_id,
        "key_activity_id": redaction.activity.id,
        "key_version": redaction.activity.version,
    }
