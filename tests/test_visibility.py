"""What lists and counts hold is what can be found one by one: the two rules are the same rule.

Lists ask SQL (`store.listings.visible_to`), everything else asks `activity.policy.can_see`.
"""

from uuid import UUID

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.auth import Scope
from app.settings import Settings
from tests.support.live import feed
from tests.support.service import Client, Service, start

LIST = """
query List($id: ID!, $order: TicketActivityOrderField!) {
  ticket(id: $id) {
    activities(first: 100, orderBy: {field: $order, direction: DESC}) {
      nodes { id } totalCount filteredCount
    }
  }
}
"""
NODES = "query Nodes($ids: [ID!]!) { nodes(ids: $ids) { id } }"
DELETE = """
mutation Delete($input: DeleteTicketActivityInput!) {
  deleteTicketActivity(input: $input) { userErrors { code } }
}
"""
ACTORS = [UUID(f"0190a3f0-0000-7000-8000-00000000000{number}") for number in range(3)]

entries = st.lists(
    st.tuples(
        st.sampled_from(ACTORS),
        st.lists(st.booleans(), min_size=1, max_size=3),  # private or not, from state to state
        st.sampled_from(["kept", "kept", "deleted", "of nobody"]),
    ),
    max_size=6,
)
viewers = st.tuples(
    st.sampled_from([*ACTORS, UUID("0190a3f0-0000-7000-8000-00000000000f")]),
    st.sets(st.sampled_from([Scope.WRITE, Scope.PRIVATE, Scope.MODERATE])),
)


async def write(
    service: Service, ticket_id: str, author: UUID, states: list[bool], fate: str
) -> str:
    client = await service.client(actor_id=author)
    first, *later = states
    id_ = str((await client.create_activity(ticket_id, isPrivate=first))["id"])
    for is_private in later:
        await client.put(ticket_id, id_, {"isPrivate": is_private, "message": "edited"})
    if fate == "deleted":
        await client.mutate(DELETE, ticketId=ticket_id, activityId=id_)
    if fate == "of nobody":
        await service.execute(
            "UPDATE ticket_activity SET actor_id = NULL WHERE id = :id", id=UUID(id_)
        )
    return id_


async def found_one_by_one(client: Client, ids: list[str]) -> set[str]:
    nodes = (await client.graphql(NODES, ids=ids))["data"]["nodes"]
    return {node["id"] for node in nodes if node}


@given(written=entries, seen_by=viewers)
@settings(max_examples=30, suppress_health_check=list(HealthCheck))
async def test_lists_counts_and_feed_hold_what_is_found_one_by_one(
    blank: Settings,
    written: list[tuple[UUID, list[bool], str]],
    seen_by: tuple[UUID, set[Scope]],
) -> None:
    async with start(blank) as service:
        ticket_id = await (await service.client()).create_ticket()
        ids = [await write(service, ticket_id, *entry) for entry in written]
        actor_id, scopes = seen_by
        viewer = await service.client(Scope.READ, *scopes, actor_id=actor_id)

        found = await found_one_by_one(viewer, ids)

        for order in ("CREATED_AT", "UPDATED_AT"):
            document = await viewer.graphql(LIST, id=ticket_id, order=order)
            listed = document["data"]["ticket"]["activities"]
            assert {node["id"] for node in listed["nodes"]} & set(ids) == found
            assert listed["totalCount"] == listed["filteredCount"] == len(found) + 1
        shown: set[str] = set()
        for change in (await feed(viewer, ticket_id))["nodes"]:
            (shown.discard if change["changeType"] == "REMOVED" else shown.add)(
                change["activityId"]
            )
        assert shown & set(ids) == found
