"""The first of the two commands, used as a newcomer uses it."""

import asyncio
import json
import re
import signal
import socket
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import uuid5

import httpx2
import pytest
from graphql import build_schema, parse, validate

from app.activity.state import ActivityType
from app.demo import COMMENT, PRINTER, demo_id
from tests.support.process import ROOT, environment, serve

SDL = ROOT / "schema.graphql"

ENTRIES = """
query($ids: [ID!]!) {
  nodes(ids: $ids) { ... on TicketActivity { activityType isPrivate actorId } }
}
"""


def run(command: str) -> str:
    """Paste a command into a shell and return what it prints."""
    return subprocess.run(  # noqa: S602
        command, shell=True, check=True, capture_output=True, text=True, timeout=30
    ).stdout


def test_the_printed_commands_work_as_they_are(tmp_path: Path) -> None:
    with serve(tmp_path / "new" / "folder" / "demo.db") as process:
        rest, graphql = process.curls

        put = json.loads(run(rest))
        mutation = json.loads(run(graphql))
        page = httpx2.get(f"{process.origin}/graphql", headers={"Accept": "text/html"})

    assert put["message"] == "Have you tried turning it off and on again?"
    assert mutation["data"]["updateTicketActivity"] == {
        "ticketActivity": {"id": str(COMMENT), "message": "And another cable?", "version": 3},
        "userErrors": [],
    }
    assert page.headers["Content-Type"].startswith("text/html")


def test_the_demo_has_entries_of_all_types_public_and_private(tmp_path: Path) -> None:
    with serve(tmp_path / "demo.db") as process:
        ids = [str(demo_id(number)) for number in [*range(101, 108), 201]]
        ids.append(str(uuid5(PRINTER, "ticket_created")))
        response = httpx2.post(
            f"{process.origin}/graphql",
            json={"query": ENTRIES, "variables": {"ids": ids}},
            headers={"Authorization": f"Bearer {process.token}"},
        )

    entries = response.json()["data"]["nodes"]
    assert {entry["activityType"] for entry in entries} == {kind.name for kind in ActivityType}
    assert {entry["isPrivate"] for entry in entries} == {True, False}
    assert len({entry["actorId"] for entry in entries}) == 2


def test_the_examples_of_graphiql_show_two_viewers_what_each_may_see(tmp_path: Path) -> None:
    with serve(tmp_path / "demo.db") as process:

        def run_example(name: str, token: str) -> Any:
            response = httpx2.post(
                f"{process.origin}/graphql",
                json={"query": examples[name], "variables": {"message": "Changed."}},
                headers={"Authorization": f"Bearer {token}"},
            )
            return response.json()

        page = httpx2.get(f"{process.origin}/graphiql/page/page.js")
        examples = dict(re.findall(r"^const ([A-Z]+) = `([^`]*)`;$", page.text, re.MULTILINE))
        ada, alan = process.token, process.token_without_private
        read = [run_example("READ", token)["data"] for token in (ada, alan)]
        updated = [run_example("UPDATE", token)["data"] for token in (ada, alan)]

    assert examples.keys() == {"READ", "UPDATE", "FOLLOW"}
    assert not validate(build_schema(SDL.read_text()), parse(examples["FOLLOW"]))
    assert [data["viewer"]["name"] for data in read] == ["Ada (demo)", "Alan (demo)"]
    seen = [data["ticket"]["activities"]["nodes"] for data in read]
    assert [sum(entry["isPrivate"] for entry in entries) for entries in seen] == [2, 0]
    assert [data["ticket"]["activities"]["totalCount"] for data in read] == [8, 6]
    [by_ada, by_alan] = [data["updateTicketActivity"] for data in updated]
    assert by_ada["ticketActivity"]["message"] == "Changed."
    assert [error["code"] for error in by_alan["userErrors"]] == ["FORBIDDEN"]


def test_a_second_start_keeps_the_data(tmp_path: Path) -> None:
    with serve(tmp_path / "demo.db") as process:
        run(process.curls[0])
        first_token = process.token
        assert process.end(signal.SIGTERM) == 0

    with serve(tmp_path / "demo.db") as process:
        response = httpx2.get(
            f"{process.origin}/v1/crm/tickets/{PRINTER}/activity/{COMMENT}",
            headers={"Authorization": f"Bearer {first_token}"},
        )
        assert process.token != first_token

    assert response.json()["message"] == "Have you tried turning it off and on again?"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_it_after_what_is_in_flight(
    tmp_path: Path, number: signal.Signals
) -> None:
    with serve(tmp_path / "demo.db") as process:
        body = b'{"message": "in flight"}'
        host, port = process.origin.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(
            f"PUT /v1/crm/tickets/{PRINTER}/activity/{COMMENT} HTTP/1.1\r\nHost: x\r\n"
            f"Authorization: Bearer {process.token}\r\nContent-Type: application/json\r\n"
            f"Expect: 100-continue\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        )
        assert b"100 Continue" in await reader.readline()  # the request is being handled

        process.popen.send_signal(number)
        writer.write(body)
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()

        assert b"200 OK" in answer
        assert b'"message":"in flight"' in answer
        assert process.popen.wait(timeout=30) == 0


def refusal(database: Path, **settings: str) -> list[str]:
    """Start the service where it cannot start; return the lines it prints."""
    ended = subprocess.run(
        [ROOT / "scripts" / "serve"],
        env=environment(database, **settings),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1
    assert ended.stdout == ""
    return ended.stderr.splitlines()


def test_a_port_in_use_is_one_clear_line(tmp_path: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        [line] = refusal(tmp_path / "demo.db", port=str(port))

    assert f"127.0.0.1 port {port}: Address already in use" in line
    assert "TICKET_ACTIVITY_PORT" in line
    assert not (tmp_path / "demo.db").exists()


def test_a_data_folder_that_cannot_be_made_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")

    [line] = refusal(tmp_path / "file" / "demo.db")

    assert f"{tmp_path}/file" in line


@pytest.mark.parametrize("workers", [1, 2])
def test_a_database_that_the_service_cannot_use_once_it_starts_is_one_clear_line(
    tmp_path: Path, workers: int
) -> None:
    """Where the database opens, but a part of the service finds it damaged as it starts."""
    file = tmp_path / "damaged.db"
    command = str(ROOT / ".venv/bin/ticket-activity")
    subprocess.run([command, "migrate"], env=environment(file), check=True, capture_output=True)
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("DELETE FROM cursor_key")

    ended = subprocess.run(
        [command, "serve", "--workers", str(workers)],
        env=environment(file),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert ended.returncode not in (0, None)
    assert "Traceback" not in ended.stderr
    said = [line for line in ended.stderr.splitlines() if "key of feed cursors" in line]
    assert said  # the first worker that fails ends the others, perhaps before they say it
    assert "The database lacks its key of feed cursors; restore a backup." in said[0]
