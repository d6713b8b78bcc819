"""Idempotency keys of mutations over WebSocket, in `extensions`: the rules of the header hold."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection

from app.settings import Settings
from tests.support.live import listening, receive, send, web_socket
from tests.support.service import CREATE_ACTIVITY, JSON, UPDATE, Client, Service, start
from tests.test_idempotency import (
    TWICE,
    assert_reused,
    comment,
    lose_answers,
    messages,
    post,
    post_for,
    update_of,
)


@pytest.fixture
async def entry(author: Client) -> JSON:
    return await author.create_activity(await author.create_ticket(), message="0")


@pytest.fixture
async def origin(service: Service) -> AsyncIterator[str]:
    async with listening(service) as address:
        yield address


@pytest.fixture
async def ws(origin: str, author: Client) -> AsyncIterator[ClientConnection]:
    async with web_socket(origin, author.token) as connection:
        yield connection


async def mutate(ws: ClientConnection, id_: str, key: Any, query: str, **variables: Any) -> None:
    payload = {"query": query, "variables": variables, "extensions": {"idempotencyKey": key}}
    await send(ws, id=id_, type="subscribe", payload=payload)


async def answered(ws: ClientConnection, key: Any, query: str, **variables: Any) -> str:
    """Send a mutation and return its response document as it came."""
    await mutate(ws, "1", key, query, **variables)
    message, head = await ws.recv(decode=True), '{"id":"1","type":"next","payload":'
    assert message.startswith(head), message
    assert await receive(ws) == {"id": "1", "type": "complete"}
    return message.removeprefix(head).removesuffix("}")


async def refused(ws: ClientConnection, key: Any, query: str, **variables: Any) -> Any:
    """Send a mutation that is not carried out, and return its error."""
    await mutate(ws, "1", key, query, **variables)
    message = await receive(ws)
    assert message["type"] == "error", message
    [error] = message["payload"]
    return error


async def test_a_mutation_again_is_answered_as_before_whatever_has_happened_since(
    service: Service, author: Client, entry: JSON, ws: ClientConnection
) -> None:
    variables = {"one": comment(entry, "1"), "two": comment(entry, "2")}
    first = await answered(ws, "k", TWICE, **variables)
    await author.put(entry["ticketId"], entry["id"], {"message": "3"})

    again = await answered(ws, "k", TWICE, **variables)
    over_http = await post(author, "k", TWICE, **variables)
    await lose_answers(service, last_step=1)
    await answered(ws, "k", TWICE, **variables)

    assert first == again == over_http.text
    assert await messages(service, entry) == ["0", "1", "2", "3", "2"]


async def test_another_request_under_the_key_is_refused(
    service: Service, author: Client, entry: JSON, ws: ClientConnection
) -> None:
    await answered(ws, "k", CREATE_ACTIVITY, input=comment(entry))

    error = await refused(ws, "k", CREATE_ACTIVITY, input=comment(entry, "other"))
    assert error["extensions"]["code"] == "IDEMPOTENCY_KEY_REUSED"
    assert_reused(await post(author, "k", UPDATE, input=update_of(entry, "1")))

    assert await messages(service, entry) == ["0", "new"]


async def test_ten_at_once_in_two_processes_have_one_effect_and_one_answer(
    settings: Settings, service: Service, author: Client, entry: JSON, origin: str
) -> None:
    async with AsyncExitStack() as stack:
        other = await stack.enter_async_context(start(settings, service.clock))
        origins = [origin, await stack.enter_async_context(listening(other))] * 5
        sockets = [
            await stack.enter_async_context(web_socket(each, author.token)) for each in origins
        ]

        answers = await asyncio.gather(
            *(answered(ws, "k", CREATE_ACTIVITY, input=comment(entry)) for ws in sockets)
        )

    assert '"message":"new"' in answers[0]
    assert len(set(answers)) == 1
    assert await messages(service, entry) == ["0", "new"]


async def test_ten_at_once_on_one_connection_have_one_effect_and_one_answer(
    service: Service, entry: JSON, ws: ClientConnection
) -> None:
    for number in range(10):
        await mutate(ws, f"{number}", "k", CREATE_ACTIVITY, input=comment(entry))
    received = [await receive(ws) for _ in range(20)]

    answers = [message["payload"] for message in received if message["type"] == "next"]
    assert len(answers) == 10
    assert all(answer == answers[0] for answer in answers)
    assert await messages(service, entry) == ["0", "new"]


async def test_what_was_sent_before_a_cut_has_one_effect_when_it_is_sent_again(
    service: Service, author: Client, entry: JSON, origin: str
) -> None:
    """As clients of graphql-transport-ws do by themselves when they connect again."""
    for _ in range(5):
        async with web_socket(origin, author.token) as ws:
            await mutate(ws, "1", "k", CREATE_ACTIVITY, input=comment(entry))
            ws.transport.abort()
    async with web_socket(origin, author.token) as ws:
        await answered(ws, "k", CREATE_ACTIVITY, input=comment(entry))

    assert await messages(service, entry) == ["0", "new"]


@pytest.mark.parametrize("key", ["", "é", "x" * 256, 5], ids=str)
async def test_a_malformed_key_is_refused(
    service: Service, author: Client, entry: JSON, ws: ClientConnection, key: Any
) -> None:
    error = await refused(ws, key, CREATE_ACTIVITY, input=comment(entry))

    assert error["extensions"]["code"] == "INVALID_INPUT"
    assert error["message"] == (
        "extensions.idempotencyKey must be 1 to 255 visible ASCII characters without a space."
    )
    assert await messages(service, entry) == ["0"]


async def test_the_extension_is_the_same_key_over_http(
    service: Service, author: Client, entry: JSON, ws: ClientConnection
) -> None:
    body = {
        "query": CREATE_ACTIVITY,
        "variables": {"input": comment(entry)},
        "extensions": {"idempotencyKey": "k"},
    }
    over_ws = await answered(ws, "k", CREATE_ACTIVITY, input=comment(entry))

    plain, both, other = [
        await author.request("POST", "/graphql", json=body, headers=headers)
        for headers in ({}, {"Idempotency-Key": "k"}, {"Idempotency-Key": "other"})
    ]
    stream = await post_for("text/event-stream", author, "k", CREATE_ACTIVITY, input=comment(entry))

    assert plain.text == both.text == over_ws
    assert f"data: {over_ws}\n" in stream.text
    [error] = other.json()["errors"]
    assert error["extensions"]["code"] == "INVALID_INPUT"
    assert error["message"].startswith("The header Idempotency-Key and extensions.idempotencyKey")
    assert await messages(service, entry) == ["0", "new"]


async def test_a_header_of_the_handshake_is_no_key(
    service: Service, author: Client, entry: JSON, origin: str
) -> None:
    header = {"Idempotency-Key": "k"}
    async with web_socket(origin, author.token, additional_headers=header) as ws:
        for _ in range(2):
            await answered(ws, None, CREATE_ACTIVITY, input=comment(entry))

    assert await messages(service, entry) == ["0", "new", "new"]


async def test_reads_take_no_key(ws: ClientConnection) -> None:
    document = await answered(ws, 5, "{ viewer { id } }")

    assert '"errors"' not in document
