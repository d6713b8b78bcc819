"""A clock that steps back takes no time of an entry or of a ticket along."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.settings import Settings
from tests.support.service import JSON, UPDATE, Client, Clock, Service, start

PAGE = """
query Page($id: ID!, $after: String) {
  ticket(id: $id) {
    activities(first: 100, after: $after, orderBy: {field: UPDATED_AT}) {
      nodes { id createdAt updatedAt revisions { nodes { changedAt } } }
      pageInfo { endCursor }
    }
  }
}
"""
CHANGES = """
query Changes($id: ID!) {
  ticketActivityChanges(ticketId: $id, first: 100) { nodes { changedAt } }
}
"""
DELETE = """
mutation Delete($input: DeleteTicketActivityInput!) {
  deleteTicketActivity(input: $input) { userErrors { code } }
}
"""


async def page(client: Client, ticket_id: str, after: str | None = None) -> Any:
    document = await client.graphql(PAGE, id=ticket_id, after=after)
    assert "errors" not in document, document
    return document["data"]["ticket"]["activities"]


async def changes(client: Client, ticket_id: str) -> list[str]:
    document = await client.graphql(CHANGES, id=ticket_id)
    assert "errors" not in document, document
    return [node["changedAt"] for node in document["data"]["ticketActivityChanges"]["nodes"]]


async def update(client: Client, entry: JSON, message: str) -> JSON:
    payload = await client.mutate(
        UPDATE, ticketId=entry["ticketId"], activityId=entry["id"], message=message
    )
    found: JSON = payload["ticketActivity"]
    return found


async def test_an_update_is_never_earlier_than_what_it_changes(service: Service) -> None:
    author = await service.client()
    entry = await author.create_activity(await author.create_ticket())
    service.clock.advance(hours=-1)

    updated = await update(author, entry, "after the step")

    assert updated["updatedAt"] == updated["createdAt"] == "2026-11-23T15:07:05.514Z"


async def test_whoever_pages_by_update_sees_an_update_after_the_step(service: Service) -> None:
    author = await service.client()
    ticket_id = await author.create_ticket()
    entries = [await author.create_activity(ticket_id) for _ in range(2)]
    first = min(entries, key=lambda entry: str(entry["id"]))
    service.clock.advance(seconds=1)
    await update(author, first, "before the step")
    end = (await page(author, ticket_id))["pageInfo"]["endCursor"]
    service.clock.advance(seconds=-5)

    [other] = [entry for entry in entries if entry is not first]
    await update(author, other, "after the step")

    assert [node["id"] for node in (await page(author, ticket_id, end))["nodes"]] == [other["id"]]


@pytest.mark.parametrize("is_restarted", [False, True])
async def test_the_changes_of_a_ticket_never_go_back_in_time(
    settings: Settings, *, is_restarted: bool
) -> None:
    clock = Clock()
    async with start(settings, clock) as service:
        author = await service.client()
        ticket_id = await author.create_ticket()
        clock.advance(seconds=10)
        entry = await author.create_activity(ticket_id)
        clock.advance(seconds=-20)
        if not is_restarted:
            await go_on(author, ticket_id, entry)
    if is_restarted:
        async with start(settings, clock) as service:
            await go_on(await service.client(actor_id=author.actor_id), ticket_id, entry)


async def go_on(author: Client, ticket_id: str, entry: JSON) -> None:
    created = await author.create_activity(ticket_id)
    await update(author, entry, "after the step")
    await author.mutate(DELETE, ticketId=ticket_id, activityId=created["id"])

    assert created["createdAt"] == entry["createdAt"] == "2026-11-23T15:07:15.514Z"
    assert await changes(author, ticket_id) == ["2026-11-23T15:07:05.514Z"] + 3 * [
        "2026-11-23T15:07:15.514Z"
    ]


async def test_a_step_of_one_ticket_is_none_of_another(service: Service) -> None:
    author = await service.client()
    await author.create_ticket()
    service.clock.advance(seconds=-20)

    entry = await author.create_activity(await author.create_ticket())

    assert entry["createdAt"] == "2026-11-23T15:06:45.514Z"


STEPS = st.lists(
    st.tuples(st.integers(-10_000, 10_000), st.sampled_from(["create", "update", "update"])),
    max_size=10,
)


@given(steps=STEPS)
@settings(max_examples=20, suppress_health_check=list(HealthCheck))
async def test_times_never_go_back_however_the_clock_runs(
    blank: Settings, steps: list[tuple[int, str]]
) -> None:
    async with start(blank) as service:
        author = await service.client()
        ticket_id = await author.create_ticket()
        entries = [await author.create_activity(ticket_id)]
        for number, (milliseconds, what) in enumerate(steps):
            service.clock.advance(milliseconds=milliseconds)
            if what == "create":
                entries.append(await author.create_activity(ticket_id))
            else:
                await update(author, entries[number % len(entries)], str(number))

        changed = await changes(author, ticket_id)
        assert changed == sorted(changed)
        for node in (await page(author, ticket_id))["nodes"]:
            times = [revision["changedAt"] for revision in node["revisions"]["nodes"]]
            assert times == sorted(times)
            assert times[0] >= node["createdAt"]
            assert node["updatedAt"] >= times[-1] >= node["createdAt"]
