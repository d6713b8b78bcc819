"""On PostgreSQL what writes many rows is one statement: none is sent once for each row."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Engine as SqlEngine
from sqlalchemy import event

from app.auth import Scope
from app.cli import main
from app.settings import Settings
from tests.support.engines import PostgresqlEngine
from tests.support.service import MERGE, Client, Clock, start

pytestmark = pytest.mark.postgresql

NAME = """
mutation Name($input: UpsertActorsInput!) {
  upsertActors(input: $input) { userErrors { code } }
}
"""
REDACT = """
mutation Redact($input: RedactTicketActivityInput!) {
  redactTicketActivity(input: $input) { userErrors { code } }
}
"""
DELETE = """
mutation Delete($input: DeleteTicketActivityInput!) {
  deleteTicketActivity(input: $input) { userErrors { code } }
}
"""


@contextmanager
def sent_for_each_row() -> Iterator[list[str]]:
    """Collect the statements that are sent once for each row."""
    seen: list[str] = []

    def note(_1: Any, _2: Any, statement: str, _3: Any, _4: Any, executemany: bool) -> None:
        if executemany:
            seen.append(statement)

    event.listen(SqlEngine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(SqlEngine, "before_cursor_execute", note)


async def write(client: Client) -> None:
    """Create, update with keys, name, delete, redact and merge, many at a time."""
    tickets = await asyncio.gather(*(client.create_ticket() for _ in range(6)))
    entries = await asyncio.gather(*(client.create_activity(id_) for id_ in tickets * 2))
    ids = [{"ticketId": entry["ticketId"], "activityId": entry["id"]} for entry in entries]
    answers = await asyncio.gather(
        *(
            client.put(
                entry["ticketId"],
                entry["id"],
                {"message": "again"},
                **{"Idempotency-Key": f'"{uuid4()}"'},
            )
            for entry in entries
        )
    )
    assert {answer.status_code for answer in answers} == {200}
    actors = [{"id": str(uuid4()), "name": "Ada"} for _ in range(3)]
    payloads = await asyncio.gather(
        client.mutate(NAME, actors=actors),
        client.mutate(NAME, actors=actors[:2]),
        *(client.mutate(DELETE, **place) for place in ids[:3]),
        *(client.mutate(REDACT, **place, reason="asked") for place in ids[3:6]),
        *(
            client.mutate(MERGE, sourceId=source, targetId=target)
            for source, target in zip(tickets[:3], tickets[3:], strict=True)
        ),
    )
    assert all(payload["userErrors"] == [] for payload in payloads)


async def test_no_statement_is_sent_for_each_row(
    settings: Settings, engine: PostgresqlEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def name_database(url: str) -> None:
        monkeypatch.setenv("TICKET_ACTIVITY_DATABASE_URL", url)

    async def run(*words: str) -> None:
        assert await asyncio.to_thread(main, words) == 0

    file, targets = str(tmp_path / "export.jsonl"), [engine.new_database() for _ in range(2)]
    with sent_for_each_row() as seen:
        async with start(settings, Clock(datetime(2020, 1, 1, tzinfo=UTC))) as service:
            client = await service.client(*Scope)
            await write(client)
        name_database(settings.database_url)
        await run("export", file, "--tokens")
        await run("copy", "--to", targets[1])
        name_database(targets[0])
        for _ in range(2):
            await run("import", file)
        await run("erase-actor", str(client.actor_id), "--redact", "--apply")
        await run("retain", "--older-than", "730d", "--apply")

    assert seen == []
    for url in targets:
        engine.drop(url)
