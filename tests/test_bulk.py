"""Bulk mutations: one unit of work, an outcome an item, in order."""

import asyncio
import json
import subprocess
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, event

from app.auth import Scope
from app.settings import Settings
from tests.support.live import feed, follow, receive, web_socket
from tests.support.process import ROOT
from tests.support.service import ACTIVITY_FIELDS, JSON, UPDATE, Client, Service, start
from tests.test_parity import ACCEPTED, KEPT, REFUSED, comparable, encoded

CREATE_ALL = f"""
mutation CreateAll($input: CreateTicketActivitiesInput!) {{
  createTicketActivities(input: $input) {{
    results {{
      ticketActivity {{ ...activityFields }} ticketActivityEdge {{ cursor }}
      userErrors {{ code message path reasons }}
    }}
    userErrors {{ code message path reasons }}
  }}
}}
{ACTIVITY_FIELDS}"""
UPDATE_ALL = f"""
mutation UpdateAll($input: UpdateTicketActivitiesInput!) {{
  updateTicketActivities(input: $input) {{
    results {{
      ticketActivity {{ ...activityFields }}
      userErrors {{ code message path reasons }}
    }}
    userErrors {{ code message path reasons }}
  }}
}}
{ACTIVITY_FIELDS}"""
WITH_TICKETS = """
mutation CreateAll($input: CreateTicketActivitiesInput!) {
  createTicketActivities(input: $input) {
    results { ticketActivity { ticket { id activities { totalCount } } } }
  }
}
"""
MISSING = "0190a3f0-5c1e-7b2a-9d3e-4f5a6b7c8d9e"


def comment(ticket_id: str, **fields: Any) -> JSON:
    return {"ticketId": ticket_id, "activityType": "COMMENT"} | fields


def codes(payload: JSON) -> list[str | None]:
    return [
        result["userErrors"][0]["code"] if result["userErrors"] else None
        for result in payload["results"]
    ]


def messages(payload: JSON) -> list[str | None]:
    return [
        result["ticketActivity"] and result["ticketActivity"]["message"]
        for result in payload["results"]
    ]


@pytest.fixture
def commits() -> Any:
    """One item for each COMMIT, of any connection."""
    seen: list[str] = []

    def note(_connection: object) -> None:
        seen.append("COMMIT")

    event.listen(Engine, "commit", note)
    yield seen
    event.remove(Engine, "commit", note)


async def test_entries_of_several_tickets_are_created_in_order(
    service: Service, author: Client, commits: list[str]
) -> None:
    tickets = [await author.create_ticket() for _ in range(3)]
    commits.clear()

    payload = await author.mutate(
        CREATE_ALL, items=[comment(tickets[n % 3], message=str(n)) for n in range(100)]
    )

    assert commits == ["COMMIT"]
    assert payload["userErrors"] == []
    assert codes(payload) == [None] * 100
    assert messages(payload) == [str(n) for n in range(100)]
    history = await service.history(tickets[1])
    assert [message for _, _, _, message in history[1:]] == [str(n) for n in range(1, 100, 3)]


async def test_an_item_that_is_refused_does_not_affect_the_others(
    service: Service, author: Client
) -> None:
    ticket_id = await author.create_ticket()
    items = [
        comment(ticket_id, message="first"),
        comment(MISSING),
        comment("x"),
        comment(ticket_id, message="x" * 65_537),
        comment(ticket_id, activityType="FIELD_CHANGE"),
        comment(ticket_id, message="last"),
    ]

    payload = await author.mutate(CREATE_ALL, items=items)

    assert codes(payload) == [
        *(None, "NOT_FOUND", "INVALID_INPUT", "INVALID_INPUT", "FORBIDDEN"),
        None,
    ]
    errors = [error for result in payload["results"] for error in result["userErrors"]]
    assert [error["path"] for error in errors] == [
        ["input", "items", "1", "ticketId"],
        ["input", "items", "2", "ticketId"],
        ["input", "items", "3", "message"],
        ["input", "items", "4", "activityType"],
    ]
    assert [message for _, _, _, message in await service.history(ticket_id)] == [
        *(None, "first"),
        "last",
    ]


async def test_an_update_sees_the_items_before_it(service: Service, author: Client) -> None:
    ticket_id = await author.create_ticket()
    entry = await author.create_activity(ticket_id, message="0")
    ids = {"ticketId": ticket_id, "activityId": entry["id"]}
    items = [
        ids | {"message": "1", "expectedVersion": 1},
        ids | {"message": "lost", "expectedVersion": 1},
        ids | {"message": "1"},
        ids | {"metadataPatch": {"a": 1}, "expectedVersion": 2},
    ]

    payload = await author.mutate(UPDATE_ALL, items=items)

    assert codes(payload) == [None, "VERSION_CONFLICT", None, None]
    [error] = payload["results"][1]["userErrors"]
    assert error["path"] == ["input", "items", "1", "expectedVersion"]
    assert [result["ticketActivity"]["version"] for result in payload["results"]] == [2, 2, 2, 3]
    assert len(await service.history(ticket_id)) == 4


async def test_an_item_that_repeats_another_is_a_retry(author: Client) -> None:
    ticket_id, id_ = await author.create_ticket(), str(uuid4())
    item = comment(ticket_id, id=id_, message="once")

    payload = await author.mutate(CREATE_ALL, items=[item, item, item | {"message": "twice"}])

    assert codes(payload) == [None, None, "ID_TAKEN"]
    assert payload["results"][0] == payload["results"][1]


@pytest.mark.parametrize("mutation", [CREATE_ALL, UPDATE_ALL], ids=["create", "update"])
async def test_no_items_are_no_error(author: Client, mutation: str) -> None:
    assert await author.mutate(mutation, items=[]) == {"results": [], "userErrors": []}


async def test_more_items_than_the_limit_are_refused_as_a_whole(
    service: Service, author: Client
) -> None:
    ticket_id = await author.create_ticket()
    item = f'{{ticketId: "{ticket_id}", activityType: VIEW}}'
    written = f"""mutation {{ createTicketActivities(input: {{items: [{item * 101}]}}) {{
        results {{ userErrors {{ code }} }} userErrors {{ code message path }} }} }}"""

    in_variables = await author.graphql(
        CREATE_ALL, input={"items": [comment(ticket_id) for _ in range(101)]}
    )
    in_document = await author.graphql(written)

    [error] = in_variables["errors"]
    assert error["extensions"] == {"code": "INVALID_INPUT"}
    assert "$input.items holds 101 items; the limit is 100." in error["message"]
    assert in_document["data"]["createTicketActivities"] == {
        "results": None,
        "userErrors": [
            {
                "code": "INVALID_INPUT",
                "message": "items holds 101 items; the limit is 100.",
                "path": ["input", "items"],
            }
        ],
    }
    assert len(await service.history(ticket_id)) == 1


async def test_a_token_that_may_not_read_is_refused_as_a_whole(
    service: Service, author: Client
) -> None:
    ticket_id = await author.create_ticket()
    writer = await service.client(Scope.WRITE)

    payload = await writer.mutate(CREATE_ALL, items=[comment(ticket_id)])

    assert payload["results"] is None
    assert [error["code"] for error in payload["userErrors"]] == ["FORBIDDEN"]


async def test_the_cost_counts_every_item(author: Client) -> None:
    """20 fields on each of 100 items, ten times, are beyond the limit of 10,000."""
    ticket_id = await author.create_ticket()
    fields = "results { ticketActivity { ...activityFields } userErrors { code message path } }"
    many = "\n".join(
        f"m{n}: createTicketActivities(input: $input) {{ {fields} }}" for n in range(10)
    )
    document = await author.graphql(
        f"mutation Many($input: CreateTicketActivitiesInput!) {{ {many} }} {ACTIVITY_FIELDS}",
        input={"items": [comment(ticket_id)]},
    )

    [error] = document["errors"]
    assert error["extensions"] == {"code": "QUERY_TOO_COMPLEX"}
    assert "its cost is 29,1" in error["message"], error["message"]


async def test_payloads_read_the_tickets_after_the_whole_write(author: Client) -> None:
    tickets = [await author.create_ticket() for _ in range(2)]
    items = [comment(tickets[0]), comment(tickets[1]), comment(tickets[0])]

    document = await author.graphql(WITH_TICKETS, input={"items": items})

    results = document["data"]["createTicketActivities"]["results"]
    assert [result["ticketActivity"]["ticket"] for result in results] == [
        {"id": tickets[n], "activities": {"totalCount": count}}
        for n, count in [(0, 3), (1, 2), (0, 3)]
    ]


async def test_followers_get_every_change(origin: str, author: Client) -> None:
    ticket_id = await author.create_ticket()
    async with web_socket(origin, author.token) as ws:
        await follow(ws, ticketId=ticket_id)
        items = [comment(ticket_id, message=str(n)) for n in range(5)]
        await author.mutate(CREATE_ALL, items=items)
        told = [
            (await receive(ws))["payload"]["data"]["ticketActivityChanges"]["change"]
            for _ in range(5)
        ]

    assert [one["ticketActivity"]["message"] for one in told] == ["0", "1", "2", "3", "4"]
    assert len((await feed(author, ticket_id))["nodes"]) == 6


async def test_a_bulk_update_answers_what_single_updates_answer(
    service: Service, author: Client
) -> None:
    """The corpus of tests/test_parity.py in one request, and one by one."""
    corpus = [*ACCEPTED.values(), *REFUSED.values()]
    ticket_id = await author.create_ticket()
    pairs = [[await author.create_activity(ticket_id, **KEPT) for _ in range(2)] for _ in corpus]
    single = [
        outcome(await send(author, UPDATE, named(pair[0]) | fields), "updateTicketActivity")
        for pair, fields in zip(pairs, corpus, strict=True)
    ]
    items = [named(pair[1]) | fields for pair, fields in zip(pairs, corpus, strict=True)]
    # Variables that cannot be read fail a request as a whole.
    readable = [n for n, (code, _) in enumerate(single) if code != "unreadable"]

    document = await send(author, UPDATE_ALL, {"items": [items[n] for n in readable]})

    results = document["data"]["updateTicketActivities"]["results"]
    assert len(readable) > len(ACCEPTED)
    assert [outcome_of(result) for result in results] == [single[n] for n in readable]


def named(entry: JSON) -> JSON:
    return {"ticketId": entry["ticketId"], "activityId": entry["id"]}


async def send(client: Client, query: str, input_: JSON) -> JSON:
    response = await client.request(
        "POST",
        "/graphql",
        content=encoded({"query": query, "variables": {"input": input_}}),
        headers={"Content-Type": "application/json"},
    )
    document: JSON = response.json()
    return document


def outcome(document: JSON, field: str) -> tuple[str | None, str | None]:
    if "errors" in document:
        return "unreadable", None
    return outcome_of(document["data"][field])


def outcome_of(payload: JSON) -> tuple[str | None, str | None]:
    [code] = [error["code"] for error in payload["userErrors"]] or [None]
    activity = comparable(payload["ticketActivity"])
    return code, json.dumps(activity) if activity else None


def test_the_script_imports_with_true_times_and_looks_it_up(tmp_path: Path) -> None:
    done = subprocess.run(
        [ROOT / "scripts/import_entries", tmp_path / "imported.db", "--entries", "1150"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 of 2 tickets are not as they were imported" in done.stdout


@given(
    numbers=st.lists(st.sampled_from(["good", "missing", "bad id", "forbidden"]), max_size=8),
    clients=st.integers(1, 3),
)
@settings(max_examples=15, suppress_health_check=list(HealthCheck))
async def test_outcomes_are_those_of_the_items_however_many_callers_there_are(
    blank: Settings, numbers: list[str], clients: int
) -> None:
    async with start(blank) as service:
        author = await service.client()
        ticket_id = await author.create_ticket()
        kinds = {
            "good": (comment(ticket_id), None),
            "missing": (comment(MISSING), "NOT_FOUND"),
            "bad id": (comment(ticket_id, id="x"), "INVALID_INPUT"),
            "forbidden": (comment(ticket_id, activityType="FIELD_CHANGE"), "FORBIDDEN"),
        }
        items = [kinds[kind][0] for kind in numbers]

        payloads = await asyncio.gather(
            *(author.mutate(CREATE_ALL, items=items) for _ in range(clients))
        )

        for payload in payloads:
            assert codes(payload) == [kinds[kind][1] for kind in numbers]
        history = await service.history(ticket_id)
        assert len(history) == 1 + clients * numbers.count("good")
