"""The textbook: the same operations, written the way the documentation of the libraries teaches.

Strawberry's own view, a session of SQLAlchemy's asyncio extension in each resolver, one commit a
request, an index for the order of the timeline, and the same durability as the service. It does
less than the service: no tokens, no history, no feed, no guard against lost updates.
"""

import os
import sys
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import strawberry
from sqlalchemy import JSON, Column, Engine, Index, event
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlmodel import Field, Session, SQLModel, col, create_engine, func, select
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from strawberry.asgi import GraphQL

from benchmark.dataset import read_activities


class Activity(SQLModel, table=True):
    __table_args__ = (Index("ix_timeline", "ticket_id", "created_at", "id"),)

    id: UUID = Field(default_factory=uuid4, primary_key=True)
    ticket_id: UUID
    activity_type: str = "comment"
    is_private: bool = False
    created_at: datetime = Field(default_factory=lambda: datetime.now(UTC))
    actor_id: UUID | None = None
    message: str | None = None
    content: dict[str, Any] = Field(default_factory=dict, sa_column=Column("metadata", JSON))
    document_id: UUID | None = None
    version: int = 1


def be_durable(engine: Engine) -> None:
    """Give each connection the settings of the service's database."""

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: object) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.close()


engine = create_async_engine(f"sqlite+aiosqlite:///{os.environ.get('TEXTBOOK_FILE', '')}")
be_durable(engine.sync_engine)
open_session = async_sessionmaker(engine, class_=AsyncSession, expire_on_commit=False)


@strawberry.type
class TicketActivity:
    id: UUID
    ticket_id: UUID
    activity_type: str
    is_private: bool
    created_at: datetime
    actor_id: UUID | None
    message: str | None
    metadata: strawberry.scalars.JSON
    document_id: UUID | None
    version: int


def shown(row: Activity) -> TicketActivity:
    return TicketActivity(
        id=row.id,
        ticket_id=row.ticket_id,
        activity_type=row.activity_type,
        is_private=row.is_private,
        created_at=row.created_at,
        actor_id=row.actor_id,
        message=row.message,
        metadata=strawberry.scalars.JSON(row.content),
        document_id=row.document_id,
        version=row.version,
    )


@strawberry.type
class Page:
    nodes: list[TicketActivity]
    total_count: int
    has_next_page: bool


@strawberry.type
class Ticket:
    id: UUID

    @strawberry.field
    async def activities(self, first: int) -> Page:
        listed = Activity.ticket_id == self.id
        order = (col(Activity.created_at), col(Activity.id))
        wanted = select(Activity).where(listed).order_by(*order).limit(first + 1)
        async with open_session() as session:
            rows = (await session.exec(wanted)).all()
            total = (await session.exec(select(func.count()).where(listed))).one()
        return Page(
            nodes=[shown(row) for row in rows[:first]],
            total_count=total,
            has_next_page=len(rows) > first,
        )


@strawberry.type
class Query:
    @strawberry.field
    async def ticket(self, id: UUID) -> Ticket:
        return Ticket(id=id)

    @strawberry.field
    async def ticket_activity(self, ticket_id: UUID, activity_id: UUID) -> TicketActivity | None:
        async with open_session() as session:
            row = await session.get(Activity, activity_id)
        return shown(row) if row and row.ticket_id == ticket_id else None


@strawberry.input
class UpdateInput:
    ticket_id: UUID
    activity_id: UUID
    message: str | None = strawberry.UNSET
    metadata: strawberry.scalars.JSON = strawberry.UNSET
    is_private: bool = strawberry.UNSET


@strawberry.input
class CreateInput:
    ticket_id: UUID
    activity_type: str
    message: str | None = None


async def change(ticket_id: UUID, activity_id: UUID, values: dict[str, Any]) -> TicketActivity:
    """Change what is given and leave the rest."""
    wanted = select(Activity).where(Activity.id == activity_id, Activity.ticket_id == ticket_id)
    async with open_session() as session:
        row = (await session.exec(wanted)).one()
        for name, value in values.items():
            setattr(row, name, value)
        row.version += 1
        session.add(row)
        await session.commit()
    return shown(row)


@strawberry.type
class Mutation:
    @strawberry.mutation
    async def update_ticket_activity(self, input: UpdateInput) -> TicketActivity:
        given = {
            "message": input.message,
            "content": input.metadata,
            "is_private": input.is_private,
        }
        values = {name: value for name, value in given.items() if value is not strawberry.UNSET}
        return await change(input.ticket_id, input.activity_id, values)

    @strawberry.mutation
    async def create_ticket_activity(self, input: CreateInput) -> TicketActivity:
        row = Activity(
            ticket_id=input.ticket_id, activity_type=input.activity_type, message=input.message
        )
        async with open_session() as session:
            session.add(row)
            await session.commit()
        return shown(row)


async def put_activity(request: Request) -> JSONResponse:
    names = {"message": "message", "metadata": "content", "isPrivate": "is_private"}
    body = await request.json()
    row = await change(
        UUID(request.path_params["ticket_id"]),
        UUID(request.path_params["activity_id"]),
        {names[name]: value for name, value in body.items() if name in names},
    )
    return JSONResponse(
        {
            "id": str(row.id),
            "ticketId": str(row.ticket_id),
            "activityType": row.activity_type,
            "isPrivate": row.is_private,
            "createdAt": row.created_at.isoformat(),
            "actorId": row.actor_id and str(row.actor_id),
            "message": row.message,
            "metadata": row.metadata,
            "documentId": row.document_id and str(row.document_id),
        }
    )


app = Starlette(
    routes=[
        Route("/v1/crm/tickets/{ticket_id}/activity/{activity_id}", put_activity, methods=["PUT"]),
        Route("/graphql", GraphQL(strawberry.Schema(Query, Mutation))),
    ]
)


def fill(source: str, file: str) -> None:
    """Make a new database of the textbook with the activities of a database of the service."""
    engine = create_engine(f"sqlite:///{file}")
    be_durable(engine)
    SQLModel.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all(Activity(**values) for values in read_activities(source))
        session.commit()


if __name__ == "__main__":
    fill(*sys.argv[1:])
