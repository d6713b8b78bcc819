"""Tickets of Zammad, as its API answers them: the ticket, its articles, history and users.

https://docs.zammad.org/en/latest/api/ticket/articles.html; the history is what
`GET /api/v1/ticket_history/{id}` answers.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

from pydantic import AwareDatetime, Field

from app.activity.state import ActivityType
from app.importers.records import (
    Entry,
    ForeignTicket,
    Merge,
    Number,
    Person,
    Source,
    read_record,
    text_of_html,
    without_null,
)

_SYSTEM = 1
"""The user by whom Zammad itself acts."""


_LISTS: Final = frozenset({"tag", "link"})
"""Attributes that are lists. The history has what was added to them, and removed."""

_MERGES: Final = frozenset({("Ticket", "merged_into"), ("Ticket", "received_merge")})
"""A merge is in the history of both tickets."""

_TOLD: Final = _MERGES | {("Ticket", "created"), ("Ticket::Article", "created")}
"""Rows of the history that become no entry of their own."""


class _Attachment(Source):
    id: Number
    filename: str | None = None
    size: int | None = None  # Zammad writes it as text
    preferences: dict[str, Any] = Field(default_factory=dict)


class _Article(Source):
    id: Number
    body: str
    content_type: str | None = None
    internal: bool
    created_at: AwareDatetime
    created_by_id: int | None = None
    origin_by_id: int | None = None
    type: str | None = None
    sender: str | None = None
    subject: str | None = None
    attachments: list[_Attachment] = Field(default_factory=list)


class _HistoryRow(Source):
    id: Number
    object: str
    type: str
    created_at: AwareDatetime
    created_by_id: int | None = None
    attribute: str | None = None
    value_from: Any = None
    value_to: Any = None
    id_from: int | None = None
    id_to: int | None = None

    @property
    def what(self) -> tuple[str, str]:
        return self.object, self.type

    @property
    def is_change(self) -> bool:
        is_of_list = self.type in ("added", "removed") and self.attribute in _LISTS
        return self.what == ("Ticket", "updated") or (self.object == "Ticket" and is_of_list)


class _User(Source):
    id: Number
    firstname: str | None = None
    lastname: str | None = None


class _Assets(Source):
    users: dict[str, _User] = Field(default_factory=dict, alias="User")


class _Ticket(Source):
    id: Number
    number: str | None = None
    title: str | None = None
    created_at: AwareDatetime
    created_by_id: int | None = None
    customer_id: int | None = None


class _Record(Source):
    ticket: _Ticket
    articles: list[_Article]
    history: list[_HistoryRow] = Field(default_factory=list)
    assets: _Assets = _Assets()


def convert(text: bytes) -> ForeignTicket:
    """Return one ticket, whose record is a line of the file."""
    record = read_record(text, _Record)
    ticket = record.ticket
    key = f"ticket/{ticket.id}"
    created = Entry(
        key=f"{key}/created",
        type=ActivityType.TICKET_CREATED,
        at=ticket.created_at,
        actor=_actor(ticket.created_by_id) or _actor(ticket.customer_id),
        message=_title(record),
        metadata=without_null(zammadId=ticket.id, number=ticket.number),
    )
    entries = [entry for article in record.articles for entry in _entries(article)]
    entries += [_field_change(row) for row in record.history if row.is_change]
    people = [_person(user) for user in record.assets.users.values() if user.id != _SYSTEM]
    merges = [
        Merge(
            f"ticket/{row.id_from}",
            f"ticket/{row.id_to}",
            row.created_at,
            _actor(row.created_by_id),
        )
        for row in record.history
        if row.what in _MERGES and row.id_from and row.id_to
    ]
    left_out = Counter(
        f"history {' '.join(row.what)}"
        for row in record.history
        if not row.is_change and row.what not in _TOLD
    )
    return ForeignTicket(key, created, entries, people, merges, left_out)


def _title(record: _Record) -> str | None:
    """Return the title as it was at first. A later change is an entry of its own."""
    for row in sorted(record.history, key=lambda row: (row.created_at, row.id)):
        if row.what == ("Ticket", "updated") and row.attribute == "title":
            return row.value_from if isinstance(row.value_from, str) else None
    return record.ticket.title


def _actor(user_id: int | None) -> str | None:
    return f"user/{user_id}" if user_id and user_id != _SYSTEM else None


def _person(user: _User) -> Person:
    return Person(f"user/{user.id}", " ".join(filter(None, (user.firstname, user.lastname))))


def _entries(article: _Article) -> Iterator[Entry]:
    """Yield an article as a comment, and a document for each of its attachments."""
    is_html = article.content_type == "text/html"
    entry = Entry(
        key=f"article/{article.id}",
        type=ActivityType.COMMENT,
        at=article.created_at,
        actor=_actor(article.origin_by_id) or _actor(article.created_by_id),
        message=text_of_html(article.body) if is_html else article.body,
        metadata=without_null(
            zammadId=article.id,
            channel=article.type,
            sender=article.sender,
            subject=article.subject or None,
        ),
        is_private=article.internal,
    )
    yield entry
    for attachment in article.attachments:
        kind = attachment.preferences.get("Mime-Type") or attachment.preferences.get("Content-Type")
        metadata = without_null(
            zammadId=attachment.id,
            name=attachment.filename,
            contentType=kind,
            bytes=attachment.size,
        )
        yield entry.upload(attachment.id, attachment.filename, metadata)


def _field_change(row: _HistoryRow) -> Entry:
    """Return a change of a field. It is private: Zammad shows the history to agents alone."""
    return Entry(
        key=f"history/{row.id}",
        type=ActivityType.FIELD_CHANGE,
        at=row.created_at,
        actor=_actor(row.created_by_id),
        message=None,
        metadata={
            "zammadId": row.id,
            "field": row.attribute,
            "from": row.value_from,
            "to": row.value_to,
        },
        is_private=True,
    )
