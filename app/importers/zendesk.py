"""Tickets of Zendesk, as its API answers them: the ticket, its comments, audits and users.

https://developer.zendesk.com/api-reference/ticketing/tickets/ticket_comments/
https://developer.zendesk.com/api-reference/ticketing/tickets/ticket_audits/
"""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

from pydantic import AwareDatetime, ConfigDict, Field

from app.activity.state import ActivityType
from app.importers.records import (
    Entry,
    ForeignTicket,
    Merge,
    Number,
    Person,
    Source,
    read_record,
    without_null,
)

_COMMENTS: Final = frozenset({"Comment", "VoiceComment", "FacebookComment"})
_OF_COMMENTS: Final = _COMMENTS | {"CommentPrivacyChange"}
"""Events that the list of comments tells, as they are now."""

_CHANGES: Final = {
    "Create": ("field_name", "previous_value", "value"),
    "Change": ("field_name", "previous_value", "value"),
    "EmailCcChange": ("email_ccs", "previous_email_ccs", "current_email_ccs"),
    "FollowerChange": ("followers", "previous_followers", "current_followers"),
}
"""Events that change a field: its name, or the member with it, and those with its values."""

_TOKEN_OF_FILE: Final = re.compile(r"(/attachments/token/)[^/?\s]+")
"""In the address of a file: whoever has it may read the file, without an account and for good."""


class _From(Source):
    title: str | None = None
    ticket_ids: list[Number] | None = None


class _ViaSource(Source):
    rel: str | None = None
    origin: _From | None = Field(default=None, alias="from")


class _Via(Source):
    channel: str | int | None = None
    source: _ViaSource | None = None


class _Attachment(Source):
    id: Number
    file_name: str | None = None
    content_type: str | None = None
    size: int | None = None


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

    model_config = ConfigDict(extra="allow", frozen=True)

    id: Number
    type: str
    field_name: str | None = None
    via: _Via | None = None

    def member(self, name: str) -> Any:
        return (self.model_extra or {}).get(name)


class _Audit(Source):
    id: Number
    author_id: int
    created_at: AwareDatetime
    via: _Via | None = None
    events: list[_Event]


class _Photo(Source):
    content_url: str | None = None


class _User(Source):
    id: Number
    name: str | None = None
    photo: _Photo | None = None


class _Ticket(Source):
    id: Number
    subject: str | None = None
    created_at: AwareDatetime
    submitter_id: int | None = None
    requester_id: int | None = None
    via: _Via = _Via()


class _Record(Source):
    ticket: _Ticket
    comments: list[_Comment]
    audits: list[_Audit] = Field(default_factory=list)
    users: list[_User] = Field(default_factory=list)


def convert(text: bytes) -> ForeignTicket:
    """Return one ticket, whose record is a line of the file."""
    record = read_record(text, _Record)
    ticket = record.ticket
    key = f"ticket/{ticket.id}"
    created = Entry(
        key=f"{key}/created",
        type=ActivityType.TICKET_CREATED,
        at=ticket.created_at,
        actor=_actor(ticket.submitter_id or ticket.requester_id),
        message=_subject(record),
        metadata=without_null(zendeskId=ticket.id, channel=ticket.via.channel),
    )
    entries = [entry for comment in record.comments for entry in _entries(comment)]
    entries += [entry for audit in record.audits for entry in _field_changes(audit)]
    people = [
        Person(f"user/{user.id}", user.name, user.photo.content_url if user.photo else None)
        for user in record.users
    ]
    merges = [merge for audit in record.audits for merge in _merges(audit, key)]
    return ForeignTicket(key, created, entries, people, merges, _left_out(record))


def _subject(record: _Record) -> str | None:
    """Return the subject as it was at first, unless the first comment is private.

    A later change is an entry of its own. Who may not see the first comment does not know the
    ticket in Zendesk.
    """
    first = min(record.comments, key=lambda comment: (comment.created_at, comment.id), default=None)
    if first is None or not first.public:
        return None
    for audit in sorted(record.audits, key=lambda audit: audit.created_at):
        for event in audit.events:
            if event.type in ("Create", "Change") and event.field_name == "subject":
                before = event.member("value" if event.type == "Create" else "previous_value")
                return before if isinstance(before, str) else None
    return record.ticket.subject


def _merges(audit: _Audit, key: str) -> Iterator[Merge]:
    """Yield the merges of other tickets into this one."""
    source = audit.via and audit.via.source
    if source and source.rel == "merge" and source.origin:
        for number in source.origin.ticket_ids or ():
            yield Merge(f"ticket/{number}", key, audit.created_at, _actor(audit.author_id))


def _left_out(record: _Record) -> Counter[str]:
    events = (event.type for audit in record.audits for event in audit.events)
    known = _OF_COMMENTS | _CHANGES.keys()
    return Counter(f"events {type_}" for type_ in events if type_ not in known)


def _actor(user_id: int | None) -> str | None:
    """Return who acted; nobody for the system, which is the user -1."""
    return f"user/{user_id}" if user_id and user_id > 0 else None


def _entries(comment: _Comment) -> Iterator[Entry]:
    """Yield a comment, and a document for each of its attachments."""
    entry = Entry(
        key=f"comment/{comment.id}",
        type=ActivityType.COMMENT,
        at=comment.created_at,
        actor=_actor(comment.author_id),
        message=_TOKEN_OF_FILE.sub(r"\1…", comment.body),
        metadata=without_null(zendeskId=comment.id, channel=comment.via.channel),
        is_private=not comment.public,
    )
    yield entry
    for attachment in comment.attachments:
        metadata = without_null(
            zendeskId=attachment.id,
            name=attachment.file_name,
            contentType=attachment.content_type,
            bytes=attachment.size,
        )
        yield entry.upload(attachment.id, attachment.file_name, metadata)


def _field_changes(audit: _Audit) -> Iterator[Entry]:
    """Yield the changes of fields. They are private: Zendesk shows audits to agents alone.

    The first subject is in the ticket's first entry. What a rule did, nobody did.
    """
    for event in audit.events:
        if event.type not in _CHANGES or (event.type, event.field_name) == ("Create", "subject"):
            continue
        name, before, after = _CHANGES[event.type]
        is_of_rule = event.via is not None and event.via.channel == "rule"
        origin = event.via.source.origin if event.via and event.via.source else None
        yield Entry(
            key=f"event/{event.id}",
            type=ActivityType.FIELD_CHANGE,
            at=audit.created_at,
            actor=None if is_of_rule else _actor(audit.author_id),
            message=None,
            metadata={
                "zendeskId": event.id,
                "field": event.field_name if name == "field_name" else name,
                "from": event.member(before),
                "to": event.member(after),
                **without_null(rule=origin.title if is_of_rule and origin else None),
            },
            is_private=True,
        )
