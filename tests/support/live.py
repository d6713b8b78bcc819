"""A service that listens on a socket, and the clients of its streams."""

import asyncio
import json
import socket
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import httpx2
import pytest
import uvicorn
from starlette.applications import Starlette
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from app.server.protocol import ServerConfig
from app.settings import Settings
from tests.support.service import JSON, Client, Service

CHANGE = """
fragment change on TicketActivityChange {
  cursor changeType activityId changedById
  ticketActivity { id message isPrivate version viewerCanUpdate ticket { id } }
}
"""

FOLLOW = f"""
subscription Follow($ticketId: ID!, $after: String) {{
  ticketActivityChanges(ticketId: $ticketId, after: $after) {{ cursor change {{ ...change }} }}
}}
{CHANGE}"""

FEED = f"""
query Feed($ticketId: ID!, $after: String, $first: Int) {{
  ticketActivityChanges(ticketId: $ticketId, after: $after, first: $first) {{
    pageInfo {{ endCursor hasNextPage }} nodes {{ ...change }}
  }}
}}
{CHANGE}"""

STATE = """
query State($id: ID!) {
  ticket(id: $id) {
    changesCursor
    activities(first: 100) { nodes { id message isPrivate version } }
  }
}
"""


@asynccontextmanager
async def listening(service: Service) -> AsyncIterator[str]:
    """Serve the doors of a service in this process on a free port; yield its origin."""
    async with serving(service.app, service.settings) as origin:
        try:
            yield origin
        finally:
            service.app.state.end_streams()


@asynccontextmanager
async def serving(app: Starlette, settings: Settings) -> AsyncIterator[str]:
    """Serve an application in this process on a free port; yield its origin."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = ServerConfig(app, settings)
    config.lifespan = "off"  # the service is running already
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:  # noqa: ASYNC110, Uvicorn has no event for it
        await asyncio.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


@asynccontextmanager
async def web_socket(
    origin: str, token: str | None, **options: Any
) -> AsyncIterator[ClientConnection]:
    """Open a WebSocket that is acknowledged; without a token it is only opened."""
    address = origin.replace("http", "ws", 1) + "/graphql"
    protocols = [Subprotocol("graphql-transport-ws")]
    async with connect(address, subprotocols=protocols, **options) as ws:
        if token is not None:
            payload = {"Authorization": f"Bearer {token}"}
            await send(ws, type="connection_init", payload=payload)
            assert await receive(ws) == {"type": "connection_ack"}
        yield ws


async def send(ws: ClientConnection, **message: Any) -> None:
    await ws.send(json.dumps(message))


async def receive(ws: ClientConnection) -> JSON:
    async with asyncio.timeout(10):
        document: JSON = json.loads(await ws.recv())
        return document


async def subscribe(
    ws: ClientConnection, id_: str = "1", query: str = FOLLOW, **vars_: Any
) -> None:
    await send(ws, id=id_, type="subscribe", payload={"query": query, "variables": vars_})


async def follow(ws: ClientConnection, id_: str = "1", query: str = FOLLOW, **vars_: Any) -> str:
    """Subscribe to a ticket, wait until the subscription has begun, and return its first cursor."""
    await subscribe(ws, id_, query, **vars_)
    message = await receive(ws)
    assert (message["id"], message["type"]) == (id_, "next"), message
    return begun(message["payload"])


def begun(document: JSON) -> str:
    """Return the cursor of the first event of a subscription, which has no change."""
    payload = document["data"]["ticketActivityChanges"]
    assert payload["change"] is None
    return str(payload["cursor"])


async def closing(ws: ClientConnection) -> tuple[int, str]:
    """Read until the service closes the connection; return the code and the reason."""

    async def read() -> None:
        while True:
            await ws.recv()

    with pytest.raises(ConnectionClosed) as closed:
        await asyncio.wait_for(read(), 10)
    end = closed.value.rcvd
    assert end
    return end.code, end.reason


@asynccontextmanager
async def over_web_socket(
    origin: str, token: str, ticket_id: str, after: str | None
) -> AsyncIterator[AsyncGenerator[JSON]]:
    """Open a subscription, wait until it has begun, yield its changes; then cut the connection."""

    async def changes() -> AsyncGenerator[JSON]:
        while True:
            message = await receive(ws)
            assert message["type"] == "next", message
            assert "errors" not in message["payload"], message
            yield message["payload"]["data"]["ticketActivityChanges"]["change"]

    async with web_socket(origin, token) as ws:
        await follow(ws, ticketId=ticket_id, after=after)
        async with aclosing(changes()) as stream:
            yield stream


async def events_of(response: httpx2.Response) -> AsyncGenerator[dict[str, str]]:
    """Yield the fields of each server-sent event."""
    event: dict[str, str] = {}
    async for line in response.aiter_lines():
        name, _, value = line.partition(":")
        if name:
            event[name] = value.removeprefix(" ")
        elif event:
            yield event
            event = {}
        else:
            event = {}


@asynccontextmanager
async def event_stream(
    origin: str, token: str, variables: JSON, query: str = FOLLOW, **headers: str
) -> AsyncIterator[AsyncGenerator[dict[str, str]]]:
    sent = {"Authorization": f"Bearer {token}", "Accept": "text/event-stream"} | headers
    async with (
        httpx2.AsyncClient(timeout=10) as http,
        http.stream(
            "POST",
            f"{origin}/graphql",
            json={"query": query, "variables": variables},
            headers=sent,
        ) as response,
        aclosing(events_of(response)) as events,
    ):
        assert response.status_code == 200, await response.aread()
        assert response.headers["Content-Type"].startswith("text/event-stream")
        yield events


@asynccontextmanager
async def over_event_stream(
    origin: str, token: str, ticket_id: str, after: str | None
) -> AsyncIterator[AsyncGenerator[JSON]]:
    """Open a stream that stands, resuming by the header; yield its changes. The end cuts it off."""

    async def changes() -> AsyncGenerator[JSON]:
        async for event in results_of(events):
            payload = json.loads(event["data"])["data"]["ticketActivityChanges"]
            assert event["id"] == payload["cursor"]
            yield payload["change"]

    resumed = {"Last-Event-ID": after} if after else {}
    async with event_stream(origin, token, {"ticketId": ticket_id}, **resumed) as events:
        await stand(events)
        async with aclosing(changes()) as stream:
            yield stream


async def results_of(events: AsyncGenerator[dict[str, str]]) -> AsyncGenerator[dict[str, str]]:
    """Yield the events that carry a result, without keep-alive messages."""
    async for event in events:
        if event.get("event") == "next":
            yield event


async def stand(events: AsyncGenerator[dict[str, str]]) -> str:
    """Wait until a subscription over server-sent events has begun; return its first cursor."""
    while (event := await anext(events)).get("event") != "next":
        pass
    return begun(json.loads(event["data"]))


async def feed(client: Client, ticket_id: str, after: str | None = None, first: int = 100) -> Any:
    document = await client.graphql(FEED, ticketId=ticket_id, after=after, first=first)
    assert "errors" not in document, document
    return document["data"]["ticketActivityChanges"]
