"""What client caches need: edges to put into lists, ids to take out of them, names of objects."""

from typing import Any

import pytest

from tests.support.service import JSON, Client, Service

EDGES = """
  byCreation: ticketActivityEdge { ...edge }
  byUpdate: ticketActivityEdge(orderBy: $by) { ...edge }
"""
EDGE = "fragment edge on TicketActivityEdge { cursor node { id message version } }"
CREATE = f"""
mutation Create($input: CreateTicketActivityInput!, $by: TicketActivityOrder) {{
  payload: createTicketActivity(input: $input) {{ {EDGES} userErrors {{ code }} }}
}}
{EDGE}"""
UPDATE = f"""
mutation Update($input: UpdateTicketActivityInput!, $by: TicketActivityOrder) {{
  payload: updateTicketActivity(input: $input) {{ {EDGES} userErrors {{ code }} }}
}}
{EDGE}"""
LISTS = f"""
query Lists($id: ID!, $by: TicketActivityOrder, $afterCreation: String, $afterUpdate: String) {{
  ticket(id: $id) {{
    byCreation: activities(after: $afterCreation) {{ edges {{ ...edge }} totalCount }}
    byUpdate: activities(after: $afterUpdate, orderBy: $by) {{ edges {{ ...edge }} }}
  }}
}}
{EDGE}"""
CHANGES = f"""
query Changes($id: ID!, $by: TicketActivityOrder) {{
  ticketActivityChanges(ticketId: $id) {{
    nodes {{
      changeType activityId removedTicketActivityId deletedTicketActivityId {EDGES}
      ticket {{ id activities {{ totalCount }} }}
    }}
  }}
}}
{EDGE}"""
DELETE = """
mutation Delete($input: DeleteTicketActivityInput!) {
  deleteTicketActivity(input: $input) { deletedTicketActivityId userErrors { code } }
}
"""
BY_UPDATE = {"field": "UPDATED_AT", "direction": "DESC"}


@pytest.fixture
async def ticket_id(service: Service, author: Client) -> str:
    ticket_id = await author.create_ticket()
    service.clock.advance(seconds=1)
    return ticket_id


async def send(client: Client, query: str, **variables: Any) -> Any:
    document = await client.graphql(query, **{"by": BY_UPDATE} | variables)
    assert "errors" not in document, document
    [found] = document["data"].values()
    return found


async def create(client: Client, ticket_id: str, **fields: Any) -> JSON:
    input_ = {"ticketId": ticket_id, "activityType": "COMMENT"} | fields
    payload: JSON = await send(client, CREATE, input=input_)
    return payload


async def test_the_edge_of_a_new_entry_is_that_of_each_list(author: Client, ticket_id: str) -> None:
    payload = await create(author, ticket_id, message="new")

    lists = await send(author, LISTS, id=ticket_id)

    assert payload["byCreation"] == lists["byCreation"]["edges"][-1]
    assert payload["byUpdate"] == lists["byUpdate"]["edges"][0]
    assert payload["byCreation"]["cursor"] != payload["byUpdate"]["cursor"]


async def test_the_edge_of_an_update_moves_in_the_order_of_updates_alone(
    service: Service, author: Client, ticket_id: str
) -> None:
    created = await create(author, ticket_id, message="before")
    service.clock.advance(seconds=1)
    input_ = {"ticketId": ticket_id, "activityId": created["byCreation"]["node"]["id"]}

    payload = await send(author, UPDATE, input=input_ | {"message": "after"})

    lists = await send(author, LISTS, id=ticket_id)
    assert payload["byUpdate"] == lists["byUpdate"]["edges"][0]
    assert payload["byCreation"] in lists["byCreation"]["edges"]
    assert payload["byCreation"]["cursor"] == created["byCreation"]["cursor"]
    assert payload["byUpdate"]["cursor"] != created["byUpdate"]["cursor"]


async def test_a_page_goes_on_after_the_cursor_of_an_edge(
    service: Service, author: Client, ticket_id: str
) -> None:
    created = await create(author, ticket_id)
    service.clock.advance(seconds=1)
    newer = await create(author, ticket_id)

    cursors = {"afterCreation": created["byCreation"]["cursor"]}
    cursors |= {"afterUpdate": newer["byUpdate"]["cursor"]}
    lists = await send(author, LISTS, id=ticket_id, **cursors)

    assert lists["byCreation"]["edges"] == [newer["byCreation"]]
    assert created["byUpdate"] in lists["byUpdate"]["edges"]
    assert newer["byUpdate"] not in lists["byUpdate"]["edges"]


async def test_what_failed_has_no_edge_but_a_conflict_has_that_of_the_entry_as_it_is(
    author: Client, ticket_id: str
) -> None:
    created = (await create(author, ticket_id, message="as it is"))["byCreation"]
    named = {"ticketId": ticket_id, "activityId": created["node"]["id"]}

    failed = await create(author, ticket_id, id="x")
    missing = await send(author, UPDATE, input=named | {"activityId": ticket_id})
    conflict = await send(author, UPDATE, input=named | {"message": "x", "expectedVersion": 7})

    for payload, code in ((failed, "INVALID_INPUT"), (missing, "NOT_FOUND")):
        edges = {"byCreation": None, "byUpdate": None}
        assert payload == edges | {"userErrors": [{"code": code}]}
    assert conflict["userErrors"] == [{"code": "VERSION_CONFLICT"}]
    assert conflict["byCreation"] == created


async def test_a_change_has_the_edge_the_ids_to_take_out_and_the_counts_of_the_ticket(
    author: Client, ticket_id: str
) -> None:
    first = (await create(author, ticket_id))["byCreation"]["node"]["id"]
    second = (await create(author, ticket_id))["byCreation"]
    await author.mutate(DELETE, ticketId=ticket_id, activityId=first)

    nodes = (await send(author, CHANGES, id=ticket_id))["nodes"]

    assert [node["changeType"] for node in nodes] == ["ADDED", "ADDED", "REMOVED"]
    assert nodes[1]["byCreation"] == second
    assert (nodes[2]["byCreation"], nodes[2]["byUpdate"]) == (None, None)
    for node, gone in zip(nodes, [None, None, first], strict=True):
        assert node["removedTicketActivityId"] == node["deletedTicketActivityId"] == gone
        assert node["ticket"] == {"id": ticket_id, "activities": {"totalCount": 2}}


async def test_the_viewer_is_named_by_the_token(service: Service, author: Client) -> None:
    query = "{ viewer { id actorId } }"
    other = await service.client(actor_id=author.actor_id)

    found = [(await one.graphql(query))["data"]["viewer"] for one in (author, author, other)]

    ids = [viewer["id"] for viewer in found]
    assert ids[0] == ids[1] == author.token.split("_")[1]
    assert ids[2] != ids[0]
    assert {viewer["actorId"] for viewer in found} == {str(author.actor_id)}
    assert await send(author, f'{{ node(id: "{ids[0]}") {{ id }} }}') is None


async def test_a_revision_keeps_its_id_and_is_no_node(author: Client, ticket_id: str) -> None:
    query = """query Q($id: ID!) {
      node(id: $id) { ... on TicketActivity { revisions { nodes { id version } } } }
    }"""
    entry, other = [await author.create_activity(ticket_id, message="1") for _ in range(2)]
    await author.put(ticket_id, entry["id"], {"message": "2"})
    before = (await send_id(author, query, entry["id"]))["revisions"]["nodes"]
    await author.put(ticket_id, entry["id"], {"message": "3"})

    after = (await send_id(author, query, entry["id"]))["revisions"]["nodes"]
    others = (await send_id(author, query, other["id"]))["revisions"]["nodes"]

    assert [node["version"] for node in after] == [1, 2, 3]
    assert after[:2] == before
    assert len({node["id"] for node in [*after, *others]}) == 4
    assert await send_id(author, query, after[0]["id"]) is None


async def send_id(client: Client, query: str, id_: str) -> Any:
    return (await client.graphql(query, id=id_))["data"]["node"]
