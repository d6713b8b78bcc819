"""A running service and its clients, with the texts of the requests they send."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx2
from sqlalchemy import Executable, make_url, text
from sqlmodel import Session, col, select
from starlette.applications import Starlette

from app.auth import Scope, parse_token
from app.main import create_app, open_settings_database
from app.models import TicketActivityChange
from app.settings import Settings
from app.store.engine import Database
from app.store.sqlite import sqlite_file
from app.store.tokens import create_token, revoke_token
from tests.support.write_lock import write_lock

ACTIVITY_FIELDS = """
fragment activityFields on TicketActivity {
  id ticketId activityType isPrivate createdAt actorId message metadata documentId
  version updatedAt updatedById isEdited
  viewerCanUpdate viewerCanDelete viewerCannotUpdateReasons
}
"""

UPDATE = f"""
mutation Update($input: UpdateTicketActivityInput!) {{
  updateTicketActivity(input: $input) {{
    ticketActivity {{ ...activityFields }}
    userErrors {{ code message path reasons }}
  }}
}}
{ACTIVITY_FIELDS}"""

CREATE_ACTIVITY = f"""
mutation Create($input: CreateTicketActivityInput!) {{
  createTicketActivity(input: $input) {{
    ticketActivity {{ ...activityFields }}
    userErrors {{ code message path reasons }}
  }}
}}
{ACTIVITY_FIELDS}"""

CREATE_TICKET = f"""
mutation Create($input: CreateTicketInput!) {{
  createTicket(input: $input) {{
    ticket {{ id createdAt mergedInto {{ id }} }}
    ticketActivity {{ ...activityFields }}
    userErrors {{ code message path reasons }}
  }}
}}
{ACTIVITY_FIELDS}"""

MERGE = f"""
mutation Merge($input: MergeTicketsInput!) {{
  mergeTickets(input: $input) {{
    source {{ id mergedInto {{ id }} }}
    target {{ id mergedInto {{ id }} activities {{ totalCount }} }}
    mergedInto {{ ...activityFields }}
    mergedFrom {{ ...activityFields }}
    userErrors {{ code message path reasons }}
  }}
}}
{ACTIVITY_FIELDS}"""

ACTIVITY = f"""
query Activity($ticketId: ID!, $activityId: ID!) {{
  ticketActivity(ticketId: $ticketId, activityId: $activityId) {{ ...activityFields }}
}}
{ACTIVITY_FIELDS}"""

READ_WRITE = (Scope.READ, Scope.WRITE)

JSON = dict[str, Any]


@dataclass
class Clock:
    """Stands still until a test moves it."""

    now: datetime = datetime(2026, 11, 23, 15, 7, 5, 514000, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def seconds(self) -> float:
        """Return the time as a monotonic clock does."""
        return self.now.timestamp()

    def advance(self, **duration: float) -> None:
        self.now += timedelta(**duration)


@dataclass
class Client:
    """One actor with one token, on both doors."""

    http: httpx2.AsyncClient
    actor_id: UUID
    token: str

    async def graphql(self, query: str, **variables: Any) -> JSON:
        """Send an operation and return the whole response document."""
        response = await self.http.post(
            "/graphql",
            json={"query": query, "variables": variables},
            headers={"Authorization": f"Bearer {self.token}"},
        )
        document: JSON = response.json()
        return document

    async def mutate(self, mutation: str, **input_: Any) -> JSON:
        """Send a mutation of one field and return its payload."""
        document = await self.graphql(mutation, input=input_)
        assert "errors" not in document, document
        [payload] = document["data"].values()
        assert isinstance(payload, dict)
        return payload

    async def request(self, method: str, url: str, **options: Any) -> httpx2.Response:
        headers = {"Authorization": f"Bearer {self.token}"} | options.pop("headers", {})
        return await self.http.request(method, url, headers=headers, **options)

    async def put(
        self, ticket_id: object, activity_id: object, body: Any, **headers: str
    ) -> httpx2.Response:
        url = activity_url(ticket_id, activity_id)
        return await self.request("PUT", url, json=body, headers=headers)

    async def get(self, ticket_id: object, activity_id: object, **headers: str) -> httpx2.Response:
        return await self.request("GET", activity_url(ticket_id, activity_id), headers=headers)

    async def create_ticket(self, **input_: Any) -> str:
        payload = await self.mutate(CREATE_TICKET, **input_)
        assert payload["userErrors"] == []
        return str(payload["ticket"]["id"])

    async def create_activity(self, ticket_id: str, **input_: Any) -> JSON:
        payload = await self.mutate(
            CREATE_ACTIVITY, **{"ticketId": ticket_id, "activityType": "COMMENT"} | input_
        )
        assert payload["userErrors"] == []
        activity: JSON = payload["ticketActivity"]
        return activity

    async def find(self, ticket_id: object, activity_id: object) -> JSON | None:
        document = await self.graphql(
            ACTIVITY, ticketId=str(ticket_id), activityId=str(activity_id)
        )
        assert "errors" not in document, document
        found: JSON | None = document["data"]["ticketActivity"]
        return found


def activity_url(ticket_id: object, activity_id: object) -> str:
    return f"/v1/crm/tickets/{ticket_id}/activity/{activity_id}"


@dataclass
class Service:
    """The service in this process, called without a socket."""

    http: httpx2.AsyncClient
    database: Database
    clock: Clock
    settings: Settings
    app: Starlette

    async def client(
        self,
        *scopes: Scope,
        actor_id: UUID | None = None,
        lifetime: timedelta | None = None,
    ) -> Client:
        """Issue a token (read and write unless scopes are named) and return its client."""
        actor_id = actor_id or uuid4()
        token = await self.database.write(
            partial(
                create_token,
                name="test",
                actor_id=actor_id,
                scopes=scopes or READ_WRITE,
                created_at=self.clock(),
                expires_at=self.clock() + lifetime if lifetime else None,
            )
        )
        return Client(self.http, actor_id, token.text)

    async def revoke(self, client: Client) -> bool:
        """Revoke the client's token, as the operator does."""
        token_id = parse_token(client.token).id
        revoking = partial(revoke_token, token_id=token_id, revoked_at=self.clock())
        return await self.database.write(revoking)

    async def execute(self, statement: str | Executable, **values: object) -> None:
        """Execute SQL on the database directly, as no API allows."""
        if isinstance(statement, str):
            statement = text(statement).bindparams(**values)
        await self.database.write(lambda session: session.connection().execute(statement).close())

    async def explain(self, statement: str, parameters: Any) -> list[str]:
        """Return the steps by which the database executes a statement."""

        def steps(session: Session) -> list[str]:
            connection = session.connection()
            if connection.dialect.name == "postgresql":
                # The tables of tests are small: an index is used where one can be at all.
                connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
                return list(
                    connection.exec_driver_sql(f"EXPLAIN {statement}", parameters).scalars()
                )
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
            return [str(row[-1]) for row in plan]

        return await self.database.read(steps)

    @property
    def file(self) -> Path:
        """The file of an SQLite database."""
        return sqlite_file(make_url(self.settings.database_url))

    @asynccontextmanager
    async def write_lock(self) -> AsyncIterator[None]:
        """Hold the lock of the database as another process would."""
        async with write_lock(self.settings.database_url):
            yield

    async def history(self, ticket_id: object) -> list[tuple[int, str, int, str | None]]:
        """Return (seq, activity id, version, message) of the ticket's changes, in order."""
        statement = (
            select(
                TicketActivityChange.seq,
                TicketActivityChange.activity_id,
                TicketActivityChange.version,
                TicketActivityChange.message,
            )
            .where(TicketActivityChange.ticket_id == UUID(str(ticket_id)))
            .order_by(col(TicketActivityChange.seq))
        )
        found = await self.database.read(lambda session: session.exec(statement).all())
        return [(seq, str(id_), version, message) for seq, id_, version, message in found]


@asynccontextmanager
async def start(
    settings: Settings, clock: Clock | None = None, tracing: Any = None
) -> AsyncIterator[Service]:
    clock = clock or Clock()
    app = create_app(settings, clock, clock.seconds, tracing)
    database = open_settings_database(settings)
    transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
    try:
        async with (
            app.router.lifespan_context(app),
            httpx2.AsyncClient(transport=transport, base_url="http://service.test") as http,
        ):
            yield Service(http, database, clock, settings, app)
    finally:
        await database.close()
