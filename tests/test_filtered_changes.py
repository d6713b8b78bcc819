"""A subscription with a filter: the changes of the list that the same filter has in a query."""

from typing import Any
from uuid import uuid4

import anyio
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from app.auth import Scope
from app.settings import Settings
from tests.support.live import feed, follow, listening, receive, subscribe, web_socket
from tests.support.service import JSON, Client, Service, start
from tests.test_delete import DELETE

FOLLOW = """
subscription Follow($ticketId: ID!, $after: String, $filter: TicketActivityFilter) {
  ticketActivityChanges(ticketId: $ticketId, after: $after, filter: $filter) {
    cursor
    change {
      changeType activityId changedById removedTicketActivityId deletedTicketActivityId
      ticketActivity { id message }
      ticketActivityEdge { node { id } }
    }
  }
}
"""
LIST = """
query List($id: ID!, $filter: TicketActivityFilter) {
  ticket(id: $id) { changesCursor activities(first: 100, filter: $filter) { nodes { id } } }
}
"""


async def listed(client: Client, ticket_id: str, filter_: JSON) -> tuple[set[str], str]:
    """Return the ids that are listed, and the cursor of that state."""
    document = await client.graphql(LIST, id=ticket_id, filter=filter_)
    assert "errors" not in document, document
    ticket = document["data"]["ticket"]
    return {node["id"] for node in ticket["activities"]["nodes"]}, ticket["changesCursor"]


async def changes_until(origin: str, client: Client, last: str, **variables: Any) -> list[JSON]:
    """Return the changes of a subscription up to the one of the entry `last`."""
    found: list[JSON] = []
    async with web_socket(origin, client.token) as ws:
        await follow(ws, query=FOLLOW, **variables)
        while not found or found[-1]["activityId"] != last:
            found.append(change_in(await receive(ws)))
    return found[:-1]


def change_in(message: JSON) -> JSON:
    change: JSON = message["payload"]["data"]["ticketActivityChanges"]["change"]
    return change


async def delete(client: Client, ticket_id: str, id_: str) -> None:
    payload = await client.mutate(DELETE, ticketId=ticket_id, activityId=id_)
    assert payload["userErrors"] == []


def seen(change: JSON) -> tuple[str, str]:
    return change["changeType"], change["activityId"]


@pytest.mark.parametrize(
    "filter_",
    [
        {"types": ["COMMENT"]},
        {"actorId": "AUTHOR"},
        {"isPrivate": False},
        {"since": "2026-11-23T15:07:07Z"},
        {"until": "2026-11-23T15:07:07Z"},
        {"text": "straße"},
        {"text": "die STRASSE"},
    ],
    ids=str,
)
async def test_what_passes_each_field_of_the_filter_is_sent_and_nothing_else(
    service: Service, origin: str, author: Client, filter_: JSON
) -> None:
    moderator = await service.client(*Scope)
    if "actorId" in filter_:
        filter_ = {"actorId": str(author.actor_id)}
    ticket_id = await moderator.create_ticket()
    after = (await listed(moderator, ticket_id, {}))[1]
    end = await moderator.create_activity(ticket_id)
    passing = {"message": "Die Straße."}
    other = {"activityType": "VIEW", "message": "Der Weg.", "isPrivate": True}
    first, second = (moderator, other), (author, passing)
    ids: list[str] = []
    is_since = "since" in filter_
    for client, fields in (first, second) if is_since else (second, first):
        service.clock.advance(seconds=1)
        ids.append((await client.create_activity(ticket_id, **fields))["id"])
    await delete(moderator, ticket_id, end["id"])

    variables = {"ticketId": ticket_id, "after": after, "filter": filter_}
    changes = await changes_until(origin, moderator, end["id"], **variables)

    assert [seen(change) for change in changes] == [("ADDED", ids[is_since])]


async def test_an_entry_that_passes_no_more_is_removed_and_one_that_begins_to_is_added(
    origin: str, author: Client
) -> None:
    ticket_id = await author.create_ticket()
    entry = await author.create_activity(ticket_id, message="open question")
    end = await author.create_activity(ticket_id)
    after = (await listed(author, ticket_id, {}))[1]
    for message in ("open", "closed", "closed again", "open again", "open still"):
        await author.put(ticket_id, entry["id"], {"message": message})
    await delete(author, ticket_id, end["id"])

    variables = {"ticketId": ticket_id, "after": after, "filter": {"text": "OPEN"}}
    changes = await changes_until(origin, author, end["id"], **variables)

    assert [change["changeType"] for change in changes] == [
        "UPDATED",
        "REMOVED",
        "ADDED",
        "UPDATED",
    ]
    removed = changes[1]
    assert removed["removedTicketActivityId"] == entry["id"]
    assert removed["deletedTicketActivityId"] is None
    assert removed["ticketActivity"] == {"id": entry["id"], "message": "closed"}
    assert removed["ticketActivityEdge"] is None
    assert removed["changedById"] == str(author.actor_id)
    for change in (changes[0], *changes[2:]):
        assert change["removedTicketActivityId"] is change["deletedTicketActivityId"] is None
        assert change["ticketActivityEdge"] == {"node": {"id": entry["id"]}}


async def test_subscribers_of_one_token_share_no_event_that_their_filters_make_different(
    origin: str, author: Client
) -> None:
    ticket_id = await author.create_ticket()
    entry = await author.create_activity(ticket_id, message="red")
    filters = {"red": {"text": "red"}, "green": {"text": "green"}, "all": None}
    received: dict[str, list[str]] = {name: [] for name in filters}

    async with web_socket(origin, author.token) as ws:
        for name, filter_ in filters.items():
            await follow(ws, name, query=FOLLOW, ticketId=ticket_id, filter=filter_)
        await author.put(ticket_id, entry["id"], {"message": "green"})
        await delete(author, ticket_id, entry["id"])
        for _ in range(6):
            message = await receive(ws)
            change = change_in(message)
            is_gone = change["deletedTicketActivityId"] is not None
            assert is_gone is (change["ticketActivity"] is None)
            received[message["id"]].append(change["changeType"] + " gone" * is_gone)

    assert received == {
        "red": ["REMOVED", "REMOVED gone"],
        "green": ["ADDED", "REMOVED gone"],
        "all": ["UPDATED", "REMOVED gone"],
    }


@pytest.mark.parametrize("filter_", [{}, {"text": "secret"}, {"text": "x"}, {"types": []}], ids=str)
async def test_a_filter_says_nothing_of_what_an_entry_held_that_is_gone(
    service: Service, origin: str, author: Client, filter_: JSON
) -> None:
    other = await service.client(Scope.READ)
    ticket_id = await author.create_ticket()
    hidden = await author.create_activity(ticket_id, message="secret")
    gone = await author.create_activity(ticket_id, message="secret too")
    end = await author.create_activity(ticket_id)
    after = (await feed(other, ticket_id, first=1))["pageInfo"]["endCursor"]
    await author.put(ticket_id, hidden["id"], {"message": "other"})
    await author.put(ticket_id, hidden["id"], {"message": "secret again"})
    await author.put(ticket_id, hidden["id"], {"isPrivate": True})
    await author.put(ticket_id, hidden["id"], {"message": "secret still"})
    await delete(author, ticket_id, gone["id"])
    await delete(author, ticket_id, end["id"])

    variables = {"ticketId": ticket_id, "after": after, "filter": filter_}
    changes = await changes_until(origin, other, end["id"], **variables)

    assert [seen(change) for change in changes] == [
        ("REMOVED", hidden["id"]),
        ("REMOVED", gone["id"]),
    ]
    for change in changes:
        assert change["ticketActivity"] is change["ticketActivityEdge"] is None
        assert change["changedById"] is None
        assert change["deletedTicketActivityId"] == change["removedTicketActivityId"]


@pytest.mark.parametrize(
    ("filter_", "message"),
    [
        ({"text": "x" * 201}, "text has 201 characters; the limit is 200."),
        ({"text": "a b c d e f g h i j k"}, "text has 11 different words; the limit is 10."),
        ({"types": None}, "types must not be null; leave it out instead."),
        ({"actorId": "x"}, "actorId"),
    ],
    ids=["text", "words", "null", "id"],
)
async def test_a_filter_that_breaks_a_rule_is_refused_before_the_subscription_begins(
    origin: str, author: Client, filter_: JSON, message: str
) -> None:
    ticket_id = await author.create_ticket()
    async with web_socket(origin, author.token) as ws:
        await subscribe(ws, "1", FOLLOW, ticketId=ticket_id, filter=filter_)
        refused = await receive(ws)

    assert refused["type"] == "error"
    [error] = refused["payload"]
    assert error["extensions"]["code"] == "INVALID_INPUT"
    assert message in error["message"]


MESSAGES = st.sampled_from(["a", "b", "ab", "", None])
FILTERS = st.fixed_dictionaries(
    {},
    optional={
        "types": st.lists(st.sampled_from(["COMMENT", "VIEW", "TICKET_CREATED"]), max_size=2),
        "actorId": st.sampled_from(["author", "viewer", None]),
        "isPrivate": st.booleans(),
        "since": st.sampled_from(["2026-11-23T15:07:05.514Z", "2026-11-23T15:07:08.514Z"]),
        "until": st.sampled_from(["2026-11-23T15:07:05.514Z", "2026-11-23T15:07:08.514Z"]),
        "text": st.sampled_from(["a", "B", "a b", "", " "]),
    },
)
OPERATIONS = st.lists(
    st.tuples(st.sampled_from(["create", "message", "private", "delete"]), MESSAGES, st.booleans()),
    max_size=8,
)


async def carry_out(
    service: Service, author: Client, ticket_id: str, ids: list[str], operations: Any
) -> None:
    """Create, update and delete entries; `ids` are those there are, the newest last."""
    for number, (kind, message, flag) in enumerate(operations):
        service.clock.advance(seconds=1)
        if kind == "create" or not ids:
            type_ = "VIEW" if number % 3 == 2 else "COMMENT"
            fields = {"activityType": type_, "message": message, "isPrivate": flag}
            ids.append((await author.create_activity(ticket_id, **fields))["id"])
            continue
        id_ = ids[number % len(ids)]
        if kind == "delete":
            await delete(author, ticket_id, ids.pop(number % len(ids)))
        else:
            body = {"message": message} if kind == "message" else {"isPrivate": flag}
            assert (await author.put(ticket_id, id_, body)).status_code == 200


def apply(list_: set[str], changes: list[JSON]) -> set[str]:
    """Return the list after the changes, each of which must fit what it is applied to."""
    for change in changes:
        id_ = change["activityId"]
        if change["changeType"] == "ADDED":
            assert id_ not in list_
            list_ |= {id_}
        elif change["changeType"] == "UPDATED":
            assert id_ in list_
        else:
            assert id_ in list_ or change["deletedTicketActivityId"] == id_
            list_ -= {id_}
    return list_


@given(filter_=FILTERS, is_author=st.booleans(), before=OPERATIONS, after=OPERATIONS)
@hypothesis_settings(max_examples=20, derandomize=True)
def test_a_list_and_the_changes_after_it_make_the_list_as_it_is_now(
    blank: Settings, filter_: JSON, is_author: bool, before: Any, after: Any
) -> None:
    """So what passes in SQL and what passes in the feed are one rule, for every viewer."""

    async def run() -> None:
        async with start(blank) as service, listening(service) as origin:
            actor_id = uuid4()
            author = await service.client(*Scope, actor_id=actor_id)
            viewer = await service.client(Scope.READ, actor_id=actor_id if is_author else None)
            actors = {"author": str(actor_id), "viewer": str(viewer.actor_id), None: None}
            wanted = filter_ | (
                {"actorId": actors[filter_["actorId"]]} if "actorId" in filter_ else {}
            )
            ticket_id = await author.create_ticket()
            end = await author.create_activity(ticket_id, message="the end")
            ids: list[str] = []
            await carry_out(service, author, ticket_id, ids, before)
            list_, cursor = await listed(viewer, ticket_id, wanted)
            await carry_out(service, author, ticket_id, ids, after)
            await delete(author, ticket_id, end["id"])

            variables = {"ticketId": ticket_id, "after": cursor, "filter": wanted}
            changes = await changes_until(origin, viewer, end["id"], **variables)

            now, _ = await listed(viewer, ticket_id, wanted)
            assert apply(list_, changes) - {end["id"]} == now

    anyio.run(run)
