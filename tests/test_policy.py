"""Who may see and do what: the lists, the feed and the mutations agree with the policy."""

from typing import Any
from uuid import uuid4

import pytest

from app.auth import Scope
from tests.support.live import FEED
from tests.support.service import UPDATE, Client, Service
from tests.test_delete import DELETE

MISSING = "0190a3f0-5c1e-7b2a-9d3e-4f5a6b7c8d9e"
SECRET = "the password is swordfish"
LIST = """
query List($id: ID!, $first: Int, $after: String, $last: Int, $before: String,
           $filter: TicketActivityFilter, $orderBy: TicketActivityOrder) {
  ticket(id: $id) {
    activities(first: $first, after: $after, last: $last, before: $before,
               filter: $filter, orderBy: $orderBy) {
      edges { cursor node { id } }
      nodes { id message createdAt updatedAt }
      pageInfo { startCursor endCursor hasNextPage hasPreviousPage }
      totalCount filteredCount
    }
  }
}
"""
VIEWERS = {
    "author": [Scope.READ, Scope.WRITE],
    "other": [Scope.READ, Scope.WRITE],
    "reader": [Scope.READ],
    "private": [Scope.READ, Scope.WRITE, Scope.PRIVATE],
    "moderator": [Scope.READ, Scope.WRITE, Scope.MODERATE],
    "all": list(Scope),
}
SEES = {"author", "private", "all"}


async def viewer_of(service: Service, author: Client, kind: str) -> Client:
    actor_id = author.actor_id if kind == "author" else uuid4()
    return await service.client(*VIEWERS[kind], actor_id=actor_id)


@pytest.mark.parametrize("kind", VIEWERS)
async def test_lists_counts_cursors_and_the_feed_are_as_if_it_were_not_there(
    service: Service, kind: str
) -> None:
    """Two tickets, alike but for the entry: whoever does not see it sees no difference."""
    author = await service.client()
    viewer = await viewer_of(service, author, kind)
    seen = []
    for has_hidden in (True, False):
        ticket_id = await author.create_ticket(message="0")
        ids = [ticket_id, str(author.actor_id)]
        for number in range(4):
            ids.append((await author.create_activity(ticket_id, message=f"{number}"))["id"])
            if has_hidden and number == 1:
                hidden = await author.create_activity(ticket_id, message=SECRET, isPrivate=True)
                ids.append(hidden["id"])
        seen.append(await listings(viewer, ticket_id))

    assert (seen[0] == seen[1]) is (kind not in SEES)
    assert (SECRET in str(seen[0])) is (kind in SEES)
    if kind in SEES:
        assert seen[0]["{}"][0] == (6, 6)


async def listings(client: Client, ticket_id: str) -> dict[str, Any]:
    """What the lists of a ticket tell, without ids and cursors: those differ by nature."""
    found: dict[str, Any] = {}
    for wanted in (
        {},
        {"text": "swordfish"},
        {"isPrivate": True},
        {"isPrivate": False},
        {"types": ["COMMENT"]},
    ):
        document = await client.graphql(LIST, id=ticket_id, first=100, filter=wanted)
        page = document["data"]["ticket"]["activities"]
        messages = [node["message"] for node in page["nodes"]]
        found[str(wanted)] = ((page["totalCount"], page["filteredCount"]), sorted(messages))
    walked, after = [], None
    for _ in range(10):
        document = await client.graphql(LIST, id=ticket_id, first=2, after=after)
        page = document["data"]["ticket"]["activities"]
        walked.append((len(page["nodes"]), page["pageInfo"]["hasNextPage"]))
        after = page["pageInfo"]["endCursor"]
        if not page["pageInfo"]["hasNextPage"]:
            break
    found["walked"] = walked
    document = await client.graphql(FEED, ticketId=ticket_id, first=100)
    changes = document["data"]["ticketActivityChanges"]["nodes"]
    found["feed"] = [
        (change["changeType"], (change["ticketActivity"] or {}).get("message"))
        for change in changes
    ]
    return found


# Who may do what

TYPES = ["COMMENT", "DOCUMENT_UPLOAD", "VIEW", "FIELD_CHANGE", "TICKET_CREATED"]
REASONS = {
    # kind: (reasons at an authored entry, reasons at a system entry)
    "author": ([], ["SYSTEM_ENTRY"]),
    "other": (["NOT_AUTHOR"], ["NOT_AUTHOR", "SYSTEM_ENTRY"]),
    "reader": (["MISSING_SCOPE", "NOT_AUTHOR"], ["MISSING_SCOPE", "NOT_AUTHOR", "SYSTEM_ENTRY"]),
    "private": (["NOT_AUTHOR"], ["NOT_AUTHOR", "SYSTEM_ENTRY"]),
    "moderator": ([], []),
    "all": ([], []),
}


@pytest.mark.parametrize("kind", VIEWERS)
@pytest.mark.parametrize("activity_type", TYPES)
async def test_what_the_entry_says_one_may_do_is_what_one_may_do(
    service: Service, kind: str, activity_type: str
) -> None:
    actor_id = uuid4()
    maker = await service.client(*Scope, actor_id=actor_id)
    author = await service.client(actor_id=actor_id)
    viewer = await viewer_of(service, author, kind)
    ticket_id = await maker.create_ticket()
    if activity_type == "TICKET_CREATED":
        document = await maker.graphql(LIST, id=ticket_id)
        id_ = document["data"]["ticket"]["activities"]["nodes"][0]["id"]
    else:
        extra = {"documentId": MISSING} if activity_type == "DOCUMENT_UPLOAD" else {}
        made = await maker.create_activity(ticket_id, activityType=activity_type, **extra)
        id_ = made["id"]
    reasons = REASONS[kind][activity_type not in {"COMMENT", "DOCUMENT_UPLOAD"}]

    seen = await viewer.find(ticket_id, id_)
    assert seen
    assert seen["viewerCannotUpdateReasons"] == reasons
    assert seen["viewerCanUpdate"] is seen["viewerCanDelete"] is not reasons
    entry = {"ticketId": ticket_id, "activityId": id_}
    for payload in (
        await viewer.mutate(UPDATE, **entry, message="after"),
        await viewer.mutate(DELETE, **entry),
    ):
        if not reasons:
            assert payload["userErrors"] == []
            continue
        [error] = payload["userErrors"]
        assert (error["code"], error["path"]) == ("FORBIDDEN", ["input", "activityId"])
        assert error["reasons"] == reasons
        assert [reason for reason in reasons if reason in error["message"]] == reasons
    response = await viewer.put(ticket_id, id_, {"message": "again"})
    assert response.status_code == (403 if reasons else 404)
    assert response.json().get("reasons", []) == reasons
