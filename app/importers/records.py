"""A ticket of another system, as any of them is read, and the commands that make it here.

Ids are derived from those of the other system, so that the same record becomes the same entries.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from html.parser import HTMLParser
from typing import Annotated, Any, Final, TypeVar
from uuid import UUID, uuid5

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json

from app.activity.actors import MAX_NAME_LENGTH, ActorUpdate, mistake_in_url
from app.activity.commands import CreateActivity, CreateTicket, MergeTickets, Past
from app.activity.state import ActivityType
from app.activity.values import JSONObject
from app.errors import InvalidInput

Number = Annotated[int, Field(ge=1, lt=2**63)]


class Source(BaseModel):
    """An object of another system's API: what is not named here is left out."""

    model_config = ConfigDict(extra="ignore", frozen=True)


S = TypeVar("S", bound=Source)


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who acts. The key is the other system's, such as `user/7`."""

    key: str
    name: str | None
    avatar_url: str | None = None

    def update(self, namespace: UUID) -> ActorUpdate:
        return ActorUpdate(
            uuid5(namespace, self.key), _printable(self.name), _shown(self.avatar_url)
        )


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

    def upload(self, id_: int, name: str | None, metadata: JSONObject) -> "Entry":
        """Return the entry of a file that came with this one, so by the same actor, and as private.

        Metadata must not have the file's address where whoever knows it may read the file.
        """
        return replace(
            self,
            key=f"{self.key}/attachment/{id_}",
            type=ActivityType.DOCUMENT_UPLOAD,
            message=name,
            metadata=metadata,
            document=f"attachment/{id_}",
        )


@dataclass(frozen=True, slots=True)
class Merge:
    """That a ticket was merged into another one. Both are named by their keys."""

    source: str
    target: str
    at: datetime
    actor: str | None


@dataclass(frozen=True, slots=True)
class Item:
    """A command, and what of the record it was made from."""

    name: str
    at: datetime
    command: CreateTicket | CreateActivity | MergeTickets


@dataclass(frozen=True, slots=True)
class ForeignTicket:
    """A ticket of another system, with its entries, which may be unordered.

    `created` is the entry that it was created. `left_out` counts what there is nothing like here.
    """

    key: str
    created: Entry
    entries: list[Entry]
    people: list[Person]
    merges: list[Merge]
    left_out: Counter[str]

    def creations(self, namespace: UUID) -> Iterator[Item]:
        """Yield what makes the ticket and its entries, in the order of their times."""
        ticket_id = uuid5(namespace, self.key)
        yield Item(
            self.key,
            self.created.at,
            CreateTicket(
                ticket_id,
                self.created.message,
                self.created.metadata,
                _past(namespace, self.created),
            ),
        )
        for entry in sorted(self.entries, key=lambda entry: (entry.at, entry.key)):
            command = CreateActivity(
                ticket_id=ticket_id,
                activity_id=uuid5(namespace, entry.key),
                activity_type=entry.type,
                message=entry.message,
                metadata=entry.metadata,
                is_private=entry.is_private,
                document_id=uuid5(namespace, entry.document) if entry.document else None,
                past=_past(namespace, entry),
                allows_merged=True,
            )
            yield Item(f"{self.key}, {entry.key}", entry.at, command)

    def mergers(self, namespace: UUID) -> Iterator[Item]:
        """Yield what merges this ticket, or another one into it."""
        for merge in self.merges:
            key = f"{merge.source}/merge/{merge.target}"
            command = MergeTickets(
                source_id=uuid5(namespace, merge.source),
                target_id=uuid5(namespace, merge.target),
                merged_into_id=uuid5(namespace, f"{key}/into"),
                merged_from_id=uuid5(namespace, f"{key}/from"),
                past=_past(namespace, merge),
            )
            yield Item(f"{self.key}, merge of {merge.source}", merge.at, command)


def _past(namespace: UUID, what: Entry | Merge) -> Past:
    return Past(what.at, actor_id=uuid5(namespace, what.actor) if what.actor else None)


def _printable(name: str | None) -> str | None:
    """Return a name as this service has names: without line ends, and not too long."""
    printable = "".join(letter if letter.isprintable() else " " for letter in name or "")
    return " ".join(printable.split())[:MAX_NAME_LENGTH] or None


def _shown(url: str | None) -> str | None:
    """Return the address of a picture, if this service lets pages show it."""
    return None if url is None or mistake_in_url(url) else url


def read_record(text: bytes, model: type[S]) -> S:
    """Read one record. Raises InvalidInput that names the member, and the ids on the way to it."""
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = _place(text, first["loc"]) or "the record"
        raise InvalidInput(f"{place}: {first['msg']}") from None


def _place(text: bytes, path: tuple[str | int, ...]) -> str:
    """Return a path as text: `comments.0 (id 1001).public`."""
    steps: list[str] = []
    value: Any = from_json(text) if path else None
    for step in path:
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            value = None
        id_ = value.get("id") if isinstance(value, dict) and isinstance(step, int) else None
        steps.append(f"{step} (id {id_})" if isinstance(id_, int) else str(step))
    return ".".join(steps)


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
