"""An answer that would be too large is never built, whatever makes it large."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.graphql_server.compiler import Result
from app.graphql_server.complexity import QueryLimits
from app.graphql_server.execution import Executor
from app.graphql_server.parser import select_operation
from app.json_text import encode_json
from app.settings import Settings
from tests.support.door import SCHEMA
from tests.support.live import (
    FOLLOW,
    event_stream,
    feed,
    listening,
    receive,
    subscribe,
    web_socket,
)
from tests.support.service import JSON, Client, Service, start

pytestmark = pytest.mark.any_engine

LIMIT = 64 * 1024

PAGE = """
query Page($id: ID!) {
  ticket(id: $id) { activities(first: 100) { nodes { SELECTION } } }
}
"""

CREATE_TWO = """
mutation Two($one: CreateTicketInput!, $two: CreateTicketInput!) {
  one: createTicket(input: $one) { ticketActivity { SELECTION } }
  two: createTicket(input: $two) { ticket { id } }
}
"""


@pytest.fixture
async def service(settings: Settings) -> AsyncIterator[Service]:
    async with start(settings.model_copy(update={"max_response_bytes": LIMIT})) as running:
        yield running


async def ticket_with(author: Client, **entry: Any) -> str:
    ticket_id = await author.create_ticket()
    for _ in range(4):
        await author.create_activity(ticket_id, **entry)
    return ticket_id


def repeated(field: str, times: int) -> str:
    return " ".join(f"a{n}: {field}" for n in range(times))


def assert_too_large(document: JSON) -> JSON:
    [error] = document["errors"]
    assert document["data"] is None
    assert error["extensions"] == {"code": "RESPONSE_TOO_LARGE"}
    assert f"larger than {LIMIT} bytes" in error["message"]
    found: JSON = error
    return found


@pytest.mark.parametrize(
    ("entry", "selection"),
    [
        ({"message": "x" * 10_000}, repeated("message", 2)),
        ({"message": "É" * 5_000}, repeated("message", 2)),
        ({"message": "\x01" * 2_000}, repeated("message", 2)),
        ({"metadata": {"a": ["x" * 10_000]}}, repeated("metadata", 2)),
        ({}, f"{'a' * 20_000}: id"),
        ({"message": "x" * 10_000}, "revisions { nodes { message } } message"),
    ],
    ids=["aliases", "two bytes a character", "escapes", "metadata", "long alias", "lists"],
)
async def test_an_answer_over_the_limit_is_refused(
    author: Client, entry: JSON, selection: str
) -> None:
    ticket_id = await ticket_with(author, **entry)

    document = await author.graphql(PAGE.replace("SELECTION", selection), id=ticket_id)

    assert_too_large(document)


async def test_an_answer_just_below_the_limit_is_complete(author: Client) -> None:
    ticket_id = await ticket_with(author, message="x" * (LIMIT // 4 - 100))

    document = await author.graphql(PAGE.replace("SELECTION", "message"), id=ticket_id)

    assert "errors" not in document
    assert len(document["data"]["ticket"]["activities"]["nodes"]) == 5


async def test_what_a_mutation_wrote_stands_and_the_error_says_so(author: Client) -> None:
    one = {"id": "0190a3f0-0000-7000-8000-000000000001", "message": "x" * 10_000}
    two = {"id": "0190a3f0-0000-7000-8000-000000000002"}
    mutation = CREATE_TWO.replace("SELECTION", repeated("message", 9))

    document = await author.graphql(mutation, one=one, two=two)

    error = assert_too_large(document)
    assert "What `one` wrote stands" in error["message"]
    assert "those after it were not begun" in error["message"]
    assert error["path"][0] == "one"
    tickets = await author.graphql(f"{{ a: {ticket(one['id'])} b: {ticket(two['id'])} }}")
    assert tickets == {"data": {"a": {"id": one["id"]}, "b": None}}


def ticket(id_: str) -> str:
    return f'ticket(id: "{id_}") {{ id }}'


LARGE_EVENT = FOLLOW.replace("message", repeated("message", 9))


async def test_an_event_over_the_limit_is_an_error_and_the_stream_goes_on(
    service: Service, author: Client
) -> None:
    ticket_id = await author.create_ticket()
    start_ = (await feed(author, ticket_id))["pageInfo"]["endCursor"]
    await author.create_activity(ticket_id, message="x" * 10_000)
    await author.create_activity(ticket_id, message="short")
    variables = {"ticketId": ticket_id, "after": start_}
    async with listening(service) as origin:
        async with web_socket(origin, author.token) as ws:
            await subscribe(ws, query=LARGE_EVENT, **variables)
            over_ws = [(await receive(ws))["payload"] for _ in range(3)]
        async with event_stream(origin, author.token, variables, LARGE_EVENT) as events:
            over_sse = [json.loads((await anext(events))["data"]) for _ in range(3)]

    for _begun, large, small in (over_ws, over_sse):
        assert_too_large(large)
        assert small["data"]["ticketActivityChanges"]["change"]["ticketActivity"]["a0"] == "short"


def execute(limit: int, query: str, variables: JSON) -> Result:
    executor = Executor(SCHEMA, cache_size=1, limits=QueryLimits(), max_response_bytes=limit)

    async def run() -> Result:
        operations = await executor.parser.parse(query, lambda _seconds: None)
        operation = select_operation(operations, None)
        return await executor.execute(operation, variables, "ada")

    return asyncio.run(run())


NUMBERS = repeated("half(of: 2000000000)", 9)
GREETINGS = (
    f"query ($a: String!) {{ b: greeting(name: $a) later items {{ __typename }} nobody {NUMBERS} }}"
)


@example(name="x", share=0.98)
@given(name=st.text(max_size=50), share=st.floats(0.5, 1.5))
@settings(deadline=None)  # each example makes two executors, slowly on a busy machine
def test_no_answer_is_longer_than_the_limit_and_none_far_below_it_is_refused(
    name: str, share: float
) -> None:
    whole = execute(10**6, GREETINGS, {"a": name})
    size = len(encode_json(whole.data))
    limit = int(size * share)

    result = execute(limit, GREETINGS, {"a": name})

    assert result == whole if result.data else len(result.errors) == 1
    assert result.data is None or size <= limit
    assert result.data or size > limit - 100
