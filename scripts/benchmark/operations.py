"""What is asked of each contender, and what a right answer holds."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from benchmark.dataset import Dataset

ID: Final = "@ID"
TICKET: Final = "@TICKET"
NUMBER: Final = "@NUMBER"
"""In a path or body they stand for an activity, its ticket, and a number that no other has."""

OPERATIONS: Final = ("update", "put", "create", "read", "page")
WRITES: Final = frozenset({"update", "put", "create"})
PUT_PATH: Final = f"/v1/crm/tickets/{TICKET}/activity/{ID}"
PAGE_SIZE: Final = 50

_FIELDS: Final = "id ticketId isPrivate createdAt actorId message metadata version"
_NODES: Final = f"nodes {{ activityType documentId {_FIELDS} }}"


@dataclass(frozen=True)
class Operation:
    """Requests of one kind to one contender; a right answer holds all texts of `expected`."""

    method: str
    path: str
    body: str
    expected: tuple[str, ...]


@dataclass(frozen=True)
class Dialect:
    """How a contender is asked for the same: its documents, and what differs in values."""

    documents: Mapping[str, str]
    comment: str
    success: tuple[str, ...]
    """What the answer to a successful mutation holds."""


SERVICE: Final = Dialect(
    documents={
        "update": "mutation Update($input: UpdateTicketActivityInput!) { "
        "updateTicketActivity(input: $input) { "
        f"ticketActivity {{ {_FIELDS} }} userErrors {{ code message path }} }} }}",
        "create": "mutation Create($input: CreateTicketActivityInput!) { "
        "createTicketActivity(input: $input) { "
        "ticketActivity { id ticketId message version } userErrors { code message path } } }",
        "read": "query Read($ticket: ID!, $id: ID!) { "
        f"ticketActivity(ticketId: $ticket, activityId: $id) {{ {_FIELDS} }} }}",
        "page": "query Page($ticket: ID!, $first: Int!) { ticket(id: $ticket) { "
        f"activities(first: $first) {{ totalCount pageInfo {{ hasNextPage }} {_NODES} }} }} }}",
    },
    comment="COMMENT",
    success=('"userErrors":[]',),
)
TEXTBOOK: Final = Dialect(
    documents={
        "update": "mutation Update($input: UpdateInput!) { "
        f"updateTicketActivity(input: $input) {{ {_FIELDS} }} }}",
        "create": "mutation Create($input: CreateInput!) { "
        "createTicketActivity(input: $input) { id ticketId message version } }",
        "read": "query Read($ticket: UUID!, $id: UUID!) { "
        f"ticketActivity(ticketId: $ticket, activityId: $id) {{ {_FIELDS} }} }}",
        "page": "query Page($ticket: UUID!, $first: Int!) { ticket(id: $ticket) { "
        f"activities(first: $first) {{ totalCount hasNextPage {_NODES} }} }} }}",
    },
    comment="comment",
    success=(),
)


def operation(name: str, dialect: Dialect, data: Dataset, tag: str) -> Operation:
    """Build an operation of OPERATIONS; `tag` makes what it writes differ from all other runs."""
    if name == "put":
        content = json.dumps(_content(tag))
        return Operation("PUT", PUT_PATH, content, (f'"message":"{tag} ', '"documentId":'))
    request = {"query": dialect.documents[name], "variables": _variables(name, dialect, data, tag)}
    expected = _expected(name, dialect, data, tag)
    return Operation("POST", "/graphql", json.dumps(request), expected)


def ceiling_operation(asked: Operation) -> Operation:
    """Return the same request with the answer that the ceiling gives."""
    return Operation(asked.method, asked.path, asked.body, ('{"data":{"ok":true}}',))


def _content(tag: str) -> dict[str, Any]:
    metadata = {"source": "bench", "tag": tag}
    return {"message": f"{tag} {NUMBER}", "metadata": metadata, "isPrivate": True}


def _variables(name: str, dialect: Dialect, data: Dataset, tag: str) -> dict[str, Any]:
    match name:
        case "update":
            return {"input": {"ticketId": TICKET, "activityId": ID} | _content(tag)}
        case "create":
            kind = {"activityType": dialect.comment, "message": f"{tag} {NUMBER}"}
            return {"input": {"ticketId": TICKET} | kind}
        case "read":
            return {"ticket": TICKET, "id": ID}
    return {"ticket": data.long_ticket, "first": PAGE_SIZE}


def _expected(name: str, dialect: Dialect, data: Dataset, tag: str) -> tuple[str, ...]:
    if name in WRITES:
        return (f'"message":"{tag} ', *dialect.success)
    if name == "read":
        return ('"ticketActivity":{"id":"', '"version":')
    return (f'"totalCount":{data.long_size}', '"version":')
