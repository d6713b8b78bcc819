"""The timeline of one ticket of another system, and the lines of an export that it becomes.

Ids are derived from those of the other system, so that the same record becomes the same rows.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from html.parser import HTMLParser
from typing import Annotated, Any, Final, TypeVar
from uuid import UUID, uuid5

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.activity.actors import MAX_NAME_LENGTH, mistake_in_url
from app.activity.state import ActivityType, ChangeType
from app.activity.values import JSONObject
from app.errors import InvalidInput

Number = Annotated[int, Field(ge=1, lt=2**63)]

Named = tuple[str, bytes]
"""A line, with what of the record it was made from."""


class Source(BaseModel):
    """An object of another system's API: what is not named here is left out."""

    model_config = ConfigDict(extra="ignore", frozen=True)


S = TypeVar("S", bound=Source)


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who acts. The key is the other system's, such as `user/7`."""

    key: str
    name: str | None
    updated_at: datetime
    avatar_url: str | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry. The key names it within the other system, such as `comment/1`."""

    key: str
    type: ActivityType
    at: datetime
    actor: str | None
    message: str | None
    metadata: JSONObject
    is_private: bool = False
    document: str | None = None


@dataclass(frozen=True, slots=True)
class Timeline:
    """A ticket with its entries. The first is that it was created; the others may be unordered."""

    key: str
    created: Entry
    entries: list[Entry] = field(default_factory=list)
    people: list[Person] = field(default_factory=list)

    def lines(self, namespace: UUID) -> Iterator[Named]:
        """Yield the lines of an export. Each entry has one version, as it was last."""

        def id_of(key: str | None) -> UUID | None:
            return uuid5(namespace, key) if key else None

        ordered = [self.created, *sorted(self.entries, key=lambda entry: (entry.at, entry.key))]
        ticket_id = id_of(self.key)
        yield self._line(
            self.key,
            kind="ticket",
            id=ticket_id,
            createdAt=self.created.at,
            lastSeq=len(ordered),
            lastChangedAt=max(entry.at for entry in ordered),
        )
        for person in self.people:
            yield self._line(
                person.key,
                kind="actor",
                id=id_of(person.key),
                name=_printable(person.name),
                avatarUrl=_shown(person.avatar_url),
                updatedAt=person.updated_at,
            )
        latest = self.created.at
        for seq, entry in enumerate(ordered, 1):
            latest = max(latest, entry.at)
            shared = {
                "ticketId": ticket_id,
                "isPrivate": entry.is_private,
                "message": entry.message,
                "metadata": entry.metadata,
                "version": 1,
            }
            yield self._line(
                entry.key,
                **shared,
                kind="entry",
                id=id_of(entry.key),
                activityType=entry.type,
                createdAt=entry.at,
                actorId=id_of(entry.actor),
                documentId=id_of(entry.document),
                updatedAt=latest,
                updatedById=id_of(entry.actor),
                deletedAt=None,
                redactedVersion=None,
            )
            yield self._line(
                entry.key,
                **shared,
                kind="change",
                seq=seq,
                activityId=id_of(entry.key),
                changeType=ChangeType.ADDED,
                changedAt=latest,
                changedById=id_of(entry.actor),
                wasPrivate=None,
                reason=None,
                recordedAt=None,
                recordedById=None,
            )

    def _line(self, key: str, **members: Any) -> Named:
        name = self.key if key == self.key else f"{self.key}, {key}"
        try:
            return name, orjson.dumps(members)
        except TypeError as error:  # half of a surrogate pair, an integer beyond 64 bits
            raise InvalidInput(f"{name}: {error}.") from None


def _printable(name: str | None) -> str | None:
    """Return a name as this service has names: without line ends, and not too long."""
    printable = "".join(letter if letter.isprintable() else " " for letter in name or "")
    return " ".join(printable.split())[:MAX_NAME_LENGTH] or None


def _shown(url: str | None) -> str | None:
    """Return the address of a picture, if this service lets pages show it."""
    return None if url is None or mistake_in_url(url) else url


def read_record(text: bytes, model: type[S]) -> S:
    """Read one record. Raises InvalidInput that names the member."""
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "the record"
        raise InvalidInput(f"{place}: {first['msg']}") from None


def without_null(**members: Any) -> JSONObject:
    """Return metadata, without what is not known."""
    return {name: value for name, value in members.items() if value is not None}


_LINE_ENDS: Final = {"br", "p", "div", "li", "tr", "blockquote", "h1", "h2", "h3", "pre"}
_HIDDEN: Final = {"script", "style"}


class _Text(HTMLParser):
    """Collects what a browser would show of HTML."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []
        self._hidden = 0

    def handle_starttag(self, tag: str, attrs: Any) -> None:  # noqa: ARG002
        self._hidden += tag in _HIDDEN
        if tag == "br":
            self.parts.append("\n")

    def handle_endtag(self, tag: str) -> None:
        self._hidden = max(self._hidden - (tag in _HIDDEN), 0)
        if tag in _LINE_ENDS and self.parts and not self.parts[-1].endswith("\n"):
            self.parts.append("\n")

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.parts.append(data)


def text_of_html(html: str) -> str:
    """Return the text of HTML, with a line end for each paragraph and break."""
    parser = _Text()
    parser.feed(html)
    parser.close()
    return "".join(parser.parts).strip()
