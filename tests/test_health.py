"""Whether the service says that it is alive and ready, and when it says that it is not."""

import asyncio
import socket

import pytest

from app.cli import main
from app.settings import Settings
from tests.support.service import CREATE_TICKET, Service, start
from tests.support.statements import statements


async def ready(service: Service) -> tuple[int, list[str]]:
    response = await service.http.get("/readyz")
    assert response.headers["Cache-Control"] == "no-store"
    document = response.json()
    assert (response.status_code == 200) == (document["status"] == "ready")
    return response.status_code, document.get("reasons", [])


async def test_a_service_is_alive_and_ready_without_a_token(service: Service) -> None:
    alive = await service.http.get("/healthz")
    head = await service.http.head("/readyz")

    assert (alive.status_code, alive.json()) == (200, {"status": "alive"})
    assert head.status_code == 200
    assert await ready(service) == (200, [])


async def test_a_database_of_another_release_is_not_ready(service: Service) -> None:
    await service.execute("UPDATE alembic_version SET version_num = 'ffff'")

    assert await ready(service) == (503, ["The tables are not those of this release."])
    assert (await service.http.get("/healthz")).status_code == 200


async def test_a_full_queue_of_writes_is_not_ready_until_it_is_written(settings: Settings) -> None:
    async with start(settings.model_copy(update={"write_queue_size": 1})) as service:
        author = await service.client()
        async with service.write_lock():
            writes = []
            while (full := await ready(service))[0] == 200:
                writes.append(asyncio.create_task(author.graphql(CREATE_TICKET, input={})))

        await asyncio.gather(*writes)
        after = await ready(service)

    assert full == (503, ["1 writes are waiting already; send the request again."])
    assert after == (200, [])


async def test_a_database_that_cannot_be_read_is_not_ready(service: Service) -> None:
    await service.execute("ALTER TABLE alembic_version RENAME COLUMN version_num TO other")

    assert await ready(service) == (503, ["The database cannot be read; the log says why."])


async def test_many_who_ask_at_once_are_answered_by_one_read(service: Service) -> None:
    with statements() as seen:
        answers = await asyncio.gather(*(ready(service) for _ in range(20)))

    assert [status for status, _reasons in answers] == [200] * 20
    assert len([text for text, _ in seen if "FROM alembic_version" in text]) == 1


# The command

Output = pytest.CaptureFixture[str]
Environment = pytest.MonkeyPatch


def name_port(monkeypatch: Environment, origin: str) -> None:
    monkeypatch.setenv("TICKET_ACTIVITY_PORT", origin.rpartition(":")[2])


async def test_the_command_prints_that_the_service_is_ready(
    origin: str, monkeypatch: Environment, capsys: Output
) -> None:
    name_port(monkeypatch, origin)

    assert await asyncio.to_thread(main, ["health"]) == 0

    assert capsys.readouterr().out == '{"status":"ready"}\n'


async def test_the_command_fails_with_the_reasons_of_a_service_that_is_not_ready(
    service: Service, origin: str, monkeypatch: Environment, capsys: Output
) -> None:
    await service.execute("UPDATE alembic_version SET version_num = 'ffff'")
    name_port(monkeypatch, origin)

    assert await asyncio.to_thread(main, ["health"]) == 1

    [line] = capsys.readouterr().err.splitlines()
    assert "answers 503" in line
    assert "The tables are not those of this release." in line


def test_the_command_fails_where_nothing_answers(monkeypatch: Environment, capsys: Output) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    monkeypatch.setenv("TICKET_ACTIVITY_PORT", str(port))

    assert main(["health"]) == 1

    [line] = capsys.readouterr().err.splitlines()
    assert f"No answer from 127.0.0.1 port {port}" in line
