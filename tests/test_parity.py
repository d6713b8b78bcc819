"""One corpus through both doors: the same state, the same result, the same error code."""

import json
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import anyio
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from app.auth import Scope
from app.settings import Settings
from tests.support.service import JSON, UPDATE, Client, Service, start

KEPT = {"message": "before", "metadata": {"kept": [1, {"a": None}]}, "isPrivate": False}
MISSING = "0190a3f0-5c1e-7b2a-9d3e-4f5a6b7c8d9e"
STATE = ("activityType", "isPrivate", "actorId", "message", "metadata", "documentId", "version")

nested: JSON = {}
for _ in range(31):
    nested = {"a": nested}

ACCEPTED: dict[str, JSON] = {
    "nothing": {},
    "message": {"message": "after"},
    "message cleared": {"message": None},
    "message emptied": {"message": ""},
    "message unchanged": {"message": "before"},
    "message of every plane": {"message": "é 漢 🙂 \u2028 \x7f \x01"},
    "message at the limit": {"message": "🙂" * 65_536},
    "metadata replaced": {"metadata": {"new": True}},
    "metadata emptied": {"metadata": {}},
    "metadata equal but for order": {"metadata": {"kept": [1, {"a": None}]}},
    "metadata 1.0 for 1": {"metadata": {"kept": [1.0, {"a": None}]}},
    "metadata true for 1": {"metadata": {"kept": [True, {"a": None}]}},
    "metadata of 64-bit integers": {"metadata": {"a": 2**63 - 1, "b": -(2**63)}},
    "metadata of odd names": {"metadata": {"": "", "__proto__": {}, "é\u2028": [[], {}, None]}},
    "metadata at the depth limit": {"metadata": nested},
    "metadata at the size limit": {"metadata": {"a": "x" * (65_536 - len('{"a":""}'))}},
    "made private": {"isPrivate": True},
    "all at once": {"message": None, "metadata": {"x": 0.5}, "isPrivate": True},
}

REFUSED: dict[str, JSON] = {
    "message of another type": {"message": 1},
    "message too long": {"message": "x" * 65_537},
    "message with NUL": {"message": "a\0b"},
    "message with half a surrogate pair": {"message": "a\ud800b"},
    "metadata null": {"metadata": None},
    "metadata a list": {"metadata": []},
    "metadata a text": {"metadata": "{}"},
    "metadata too large": {"metadata": {"a": "x" * (65_537 - len('{"a":""}'))}},
    "metadata too deep": {"metadata": {"a": nested}},
    "metadata with a large integer": {"metadata": {"a": [2**63]}},
    "metadata with a small integer": {"metadata": {"a": -(2**63) - 1}},
    "metadata with NaN": {"metadata": {"a": float("nan")}},
    "metadata with Infinity": {"metadata": {"a": float("-inf")}},
    "metadata with NUL": {"metadata": {"a": ["\0"]}},
    "metadata with NUL in a name": {"metadata": {"\0": 1}},
    "metadata with half a surrogate pair": {"metadata": {"a": "\udfff"}},
    "metadata with half a surrogate pair in a name": {"metadata": {"\ud800": 1}},
    "isPrivate null": {"isPrivate": None},
    "isPrivate a number": {"isPrivate": 1},
    "isPrivate a text": {"isPrivate": "true"},
    "a good field and a bad one": {"message": "after", "isPrivate": None},
}


@dataclass(frozen=True)
class Seen:
    """What one door made of a request."""

    code: str | None
    result: JSON | None
    state: JSON | None
    changes: int


async def given_entries(author: Client) -> list[JSON]:
    """Two entries alike, each on a ticket of its own: one for each door."""
    tickets = [await author.create_ticket() for _ in range(2)]
    return [await author.create_activity(ticket_id, **KEPT) for ticket_id in tickets]


def encoded(value: Any) -> bytes:
    """JSON as a careless client writes it: NaN and half surrogate pairs included."""
    return json.dumps(value).encode()


async def through_graphql(client: Client, ticket_id: str, activity_id: str, fields: JSON) -> Any:
    variables = {"input": {"ticketId": ticket_id, "activityId": activity_id} | fields}
    response = await client.request(
        "POST",
        "/graphql",
        content=encoded({"query": UPDATE, "variables": variables}),
        headers={"Content-Type": "application/json"},
    )
    document = response.json()
    if "errors" in document:
        [code] = {error["extensions"]["code"] for error in document["errors"]}
        return code, None
    payload = document["data"]["updateTicketActivity"]
    codes = [error["code"] for error in payload["userErrors"]]
    return (codes[0] if codes else None), payload["ticketActivity"]


async def through_rest(client: Client, ticket_id: str, activity_id: str, fields: JSON) -> Any:
    response = await client.request(
        "PUT",
        f"/v1/crm/tickets/{ticket_id}/activity/{activity_id}",
        content=encoded(fields),
        headers={"Content-Type": "application/json"},
    )
    document = response.json()
    if response.status_code == 200:
        return None, document | {"version": json.loads(response.headers["ETag"].strip('"'))}
    return document["code"], None


async def both_doors(
    service: Service, author: Client, client: Client, fields: JSON, ids: JSON | None = None
) -> list[Seen]:
    """Send the fields through each door to an entry of its own, and look at what came of it."""
    witness = await service.client(*Scope, actor_id=author.actor_id)
    seen = []
    for send, entry in zip(
        (through_graphql, through_rest), await given_entries(author), strict=True
    ):
        target = {"ticket_id": entry["ticketId"], "activity_id": entry["id"]} | (ids or {})
        code, result = await send(client, target["ticket_id"], target["activity_id"], fields)
        state = await witness.find(entry["ticketId"], entry["id"])
        assert state is not None
        changes = len(await service.history(entry["ticketId"]))
        seen.append(Seen(code, comparable(result), comparable(state), changes))
    return seen


def comparable(activity: JSON | None) -> JSON | None:
    if activity is None:
        return None
    return {
        name: str(activity[name]).upper() if name == "activityType" else activity[name]
        for name in STATE
    }


@pytest.mark.parametrize("fields", ACCEPTED.values(), ids=ACCEPTED)
async def test_doors_agree_on_what_they_accept(service: Service, fields: JSON) -> None:
    author = await service.client()

    graphql, rest = await both_doors(service, author, author, fields)

    assert graphql == rest
    assert graphql.code is None
    assert graphql.result == graphql.state
    assert graphql.state is not None
    assert encoded({name: graphql.state[name] for name in KEPT}) == encoded(KEPT | fields)


@pytest.mark.parametrize("fields", REFUSED.values(), ids=REFUSED)
async def test_doors_agree_on_what_they_refuse(service: Service, fields: JSON) -> None:
    author = await service.client()

    graphql, rest = await both_doors(service, author, author, fields)

    assert graphql == rest
    assert (graphql.code, graphql.changes) == ("INVALID_INPUT", 2)
    assert graphql.state is not None
    assert {name: graphql.state[name] for name in KEPT} == KEPT


@pytest.mark.parametrize(
    "wrong_id",
    [
        "x",
        "0190a3f05c1e7b2a9d3e4f5a6b7c8d9e",
        "{0190a3f0-5c1e-7b2a-9d3e-4f5a6b7c8d9e}",
        "urn:uuid:0190a3f0-5c1e-7b2a-9d3e-4f5a6b7c8d9e",
        "0190a3f0-5c1e-0b2a-9d3e-4f5a6b7c8d9e",
        "0190a3f0-5c1e-7b2a-cd3e-4f5a6b7c8d9e",
        "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF",
        "0190a3f0-5c1e-7b2a-9d3e-4f5a6b7c8d9e ",
        "٠190a3f0-5c1e-7b2a-9d3e-4f5a6b7c8d9e",
    ],
)
@pytest.mark.parametrize("name", ["ticket_id", "activity_id"])
async def test_doors_agree_on_ids_that_are_not_the_contracts(
    service: Service, name: str, wrong_id: str
) -> None:
    author = await service.client()

    graphql, rest = await both_doors(service, author, author, {"message": "x"}, {name: wrong_id})

    assert graphql == rest
    assert (graphql.code, graphql.changes) == ("INVALID_INPUT", 2)


async def test_doors_read_ids_in_upper_case(service: Service) -> None:
    author = await service.client()
    first, second = await given_entries(author)

    codes = [
        await through_graphql(author, first["ticketId"].upper(), first["id"].upper(), {}),
        await through_rest(author, second["ticketId"].upper(), second["id"].upper(), {}),
    ]

    assert [(code, result["id"]) for code, result in codes] == [
        (None, first["id"]),
        (None, second["id"]),
    ]


@pytest.mark.parametrize("ids", [{"ticket_id": MISSING}, {"activity_id": MISSING}], ids=str)
async def test_doors_agree_on_what_does_not_exist(service: Service, ids: JSON) -> None:
    author = await service.client()

    graphql, rest = await both_doors(service, author, author, {"message": "x"}, ids)

    assert graphql == rest
    assert (graphql.code, graphql.changes) == ("NOT_FOUND", 2)


async def test_doors_agree_on_an_activity_of_another_ticket(service: Service) -> None:
    author = await service.client()
    other = await author.create_ticket()

    graphql, rest = await both_doors(
        service, author, author, {"message": "x"}, {"ticket_id": other}
    )

    assert graphql == rest
    assert (graphql.code, graphql.changes) == ("NOT_FOUND", 2)


@pytest.mark.parametrize(
    ("scopes", "is_author", "code"),
    [
        ([Scope.WRITE], True, "FORBIDDEN"),
        ([Scope.READ], True, "FORBIDDEN"),
        ([Scope.READ, Scope.PRIVATE], True, "FORBIDDEN"),
        ([Scope.READ, Scope.WRITE], False, "FORBIDDEN"),
        ([Scope.READ, Scope.WRITE, Scope.PRIVATE], False, "FORBIDDEN"),
        ([Scope.READ, Scope.MODERATE], False, None),
        ([Scope.READ, Scope.WRITE], True, None),
    ],
)
async def test_doors_agree_on_who_may(
    service: Service, scopes: list[Scope], is_author: bool, code: str | None
) -> None:
    author = await service.client()
    client = await service.client(*scopes, actor_id=author.actor_id if is_author else uuid4())

    graphql, rest = await both_doors(service, author, client, {"message": "x"})

    assert graphql == rest
    assert graphql.code == code


@pytest.mark.parametrize("token", ["", "x", "tka_0123456789abcdef_" + "a" * 43])
async def test_doors_agree_on_tokens_they_do_not_know(service: Service, token: str) -> None:
    author = await service.client()
    stranger = Client(service.http, uuid4(), token)

    graphql, rest = await both_doors(service, author, stranger, {"message": "x"})

    assert graphql == rest
    assert (graphql.code, graphql.changes) == ("UNAUTHENTICATED", 2)


text = st.text(st.characters(codec=None), max_size=20)
numbers = st.integers(-(2**64), 2**64) | st.floats()
values = st.recursive(
    st.none() | st.booleans() | numbers | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=10,
)
bodies = st.fixed_dictionaries(
    {},
    optional={
        "message": st.none() | text | values,
        "metadata": st.dictionaries(text, values, max_size=3) | values,
        "isPrivate": st.booleans() | values,
    },
)


@given(fields=bodies)
@hypothesis_settings(max_examples=50, derandomize=True)
def test_doors_agree_on_anything(blank: Settings, fields: JSON) -> None:
    async def run() -> None:
        async with start(blank) as service:
            author = await service.client()
            graphql, rest = await both_doors(service, author, author, fields)
            assert encoded(graphql.__dict__) == encoded(rest.__dict__)

    anyio.run(run)
