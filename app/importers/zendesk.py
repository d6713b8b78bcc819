"""Tickets of Zendesk, as its API answers them: the ticket, its comments, audits and users.

https://developer.zendesk.com/api-reference/ticketing/tickets/ticket_comments/
https://developer.zendesk.com/api-reference/ticketing/tickets/ticket_audits/
"""

from collections.abc import Iterator
from typing import Any
from uuid import UUID

from pydantic import AwareDatetime, Field

from app.activity.state import ActivityType
from app.importers.timeline import (
    Entry,
    Named,
    Number,
    Person,
    Source,
    Timeline,
    read_record,
    without_null,
)


class _Via(Source):
    channel: str | int | None = None


class _Attachment(Source):
    id: Number
    file_name: str | None = None
    content_type: str | None = None
    size: int | None = None
    content_url: str | None = None


class _Comment(Source):
    id: Number
    author_id: int
    body: str
    public: bool
    created_at: AwareDatetime
    via: _Via = _Via()
    attachments: list[_Attachment] = Field(default_factory=list)


class _Event(Source):
    """An event of an audit. Which members it has depends on its type."""

    id: Number
    type: str
    field_name: str | None = None
    value: Any = None
    previous_value: Any = None


class _Audit(Source):
    id: Number
    author_id: int
    created_at: AwareDatetime
    events: list[_Event]


class _User(Source):
    id: Number
    name: str | None = None
    photo: dict[str, Any] | None = None
    updated_at: AwareDatetime | None = None


class _Ticket(Source):
    id: Number
    subject: str | None = None
    created_at: AwareDatetime
    submitter_id: int | None = None
    requester_id: int | None = None
    status: str | None = None
    priority: str | None = None
    type: str | None = None
    tags: list[str] | None = None
    via: _Via = _Via()


class _Record(Source):
    ticket: _Ticket
    comments: list[_Comment]
    audits: list[_Audit] = Field(default_factory=list)
    users: list[_User] = Field(default_factory=list)


def convert(text: bytes, namespace: UUID) -> Iterator[Named]:
    """Yield the lines of one ticket."""
    record = read_record(text, _Record)
    ticket = record.ticket
    created = Entry(
        key=f"ticket/{ticket.id}/created",
        type=ActivityType.TICKET_CREATED,
        at=ticket.created_at,
        actor=_actor(ticket.submitter_id or ticket.requester_id),
        message=ticket.subject,
        metadata=without_null(
            zendeskId=ticket.id,
            channel=ticket.via.channel,
            status=ticket.status,
            priority=ticket.priority,
            type=ticket.type,
            tags=ticket.tags,
        ),
    )
    entries = [entry for comment in record.comments for entry in _entries(comment)]
    entries += [entry for audit in record.audits for entry in _field_changes(audit)]
    people = [
        Person(
            f"user/{user.id}",
            user.name,
            user.updated_at or ticket.created_at,
            (user.photo or {}).get("content_url"),
        )
        for user in record.users
    ]
    return Timeline(f"ticket/{ticket.id}", created, entries, people).lines(namespace)


def _actor(user_id: int | None) -> str | None:
    """Return who acted; nobody for the system, which is the user -1."""
    return f"user/{user_id}" if user_id and user_id > 0 else None


def _entries(comment: _Comment) -> Iterator[Entry]:
    """Yield a comment, and a document for each of its attachments."""
    author, is_private = _actor(comment.author_id), not comment.public
    yield Entry(
        key=f"comment/{comment.id}",
        type=ActivityType.COMMENT,
        at=comment.created_at,
        actor=author,
        message=comment.body,
        metadata=without_null(zendeskId=comment.id, channel=comment.via.channel),
        is_private=is_private,
    )
    for attachment in comment.attachments:
        yield Entry(
            key=f"comment/{comment.id}/attachment/{attachment.id}",
            type=ActivityType.DOCUMENT_UPLOAD,
            at=comment.created_at,
            actor=author,
            message=attachment.file_name,
            metadata=without_null(
                zendeskId=attachment.id,
                name=attachment.file_name,
                contentType=attachment.content_type,
                bytes=attachment.size,
                url=attachment.content_url,
            ),
            is_private=is_private,
            document=f"attachment/{attachment.id}",
        )


def _field_changes(audit: _Audit) -> Iterator[Entry]:
    """Yield the changes of fields. They are private: Zendesk shows audits to agents alone."""
    for event in audit.events:
        if event.type == "Change":
            yield Entry(
                key=f"event/{event.id}",
                type=ActivityType.FIELD_CHANGE,
                at=audit.created_at,
                actor=_actor(audit.author_id),
                message=None,
                metadata={
                    "zendeskId": event.id,
                    "field": event.field_name,
                    "from": event.previous_value,
                    "to": event.value,
                },
                is_private=True,
            )
