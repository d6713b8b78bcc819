"""The recipes of README.md: each client, as its users have it, loses and repeats nothing."""

import asyncio
import json
import os
import re
import shutil
import signal
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit
from uuid import uuid4

import httpx2
import pytest
from graphql import build_schema, parse, validate
from sqlmodel import Session

from app.activity.values import utc_now
from app.auth import Scope, parse_token
from app.demo import COMMENT, PRINTER
from app.models import AccessToken
from app.store.database import open_database
from app.store.retention import expire_cursors
from app.store.tokens import create_token
from tests.support.process import ROOT, Process, serve

T = TypeVar("T")

README = (ROOT / "README.md").read_text()
SECTION = README.partition("## Reconnect recipe\n")[2].partition("\n## ")[0]
NODE, MODULES = shutil.which("node"), os.environ.get("RECIPES_NODE_MODULES", "")
ENDS = (signal.SIGTERM, signal.SIGKILL) * 4 + (signal.SIGTERM,)

YOURS = """
import WebSocket from "ws";
globalThis.WebSocket ??= WebSocket;
const { url, token, ticketId, changesCursor } = JSON.parse(process.argv[2]);
const show = ({ data, ...rest }) => {
  if (!data) console.log(JSON.stringify(rest));
  else if (data.ticketActivityChanges.change)
    console.log(data.ticketActivityChanges.change.ticketActivity.message);
};
const refused = async (response) => console.log(await response.text());
let known = changesCursor; // with what the page has shown at first
const readTimeline = async (id) => {
  const first = known;
  known = undefined;
  if (first) return first;
  const body = JSON.stringify({ query: `{ ticket(id: "${id}") { changesCursor } }` });
  const all = { Authorization: `Bearer ${token}`, "Content-Type": "application/json" };
  const { data } = await (await fetch(url, { method: "POST", headers: all, body })).json();
  console.log("read anew");
  return data.ticket.changesCursor;
};
"""
FIRST = "globalThis.WebSocket ??= WebSocket;\n"
# What `requestSubscription` does with an operation that Relay's compiler has read.
REQUEST_SUBSCRIPTION = """
network
  .execute({ text: FOLLOW, name: "Follow", operationKind: "subscription" }, variables, {})
  .subscribe({ next: show, error: show });
"""


def recipes() -> dict[str, str]:
    """Return the module that follows the ticket, by the name of its client."""
    shared, *rest = re.split(r"^\*\*(.+?)\*\*", SECTION, flags=re.MULTILINE)
    blocks = {
        name: re.findall(r"^```js\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        for name, text in zip(rest[::2], rest[1::2], strict=True)
    }
    [common] = re.findall(r"^```js\n(.*?)^```", shared, re.MULTILINE | re.DOTALL)
    web_socket = blocks["graphql-ws 6"][0]
    blocks["Relay"].append(REQUEST_SUBSCRIPTION)
    for name in ("Apollo Client 4", "urql 6", "Relay"):
        blocks[name].insert(0, web_socket)
    return {name: "\n".join([YOURS, common, *code]) for name, code in blocks.items()}


@dataclass
class Follower:
    """A client in a process of its own, and the messages it was shown."""

    process: asyncio.subprocess.Process
    shown: list[str] = field(default_factory=list)

    async def read_until(self, message: str) -> None:
        assert self.process.stdout
        while message not in self.shown[-1:]:
            line = await self.process.stdout.readline()
            assert line, self.shown
            self.shown.append(line.decode().rstrip("\n"))


@pytest.fixture
def scripts(tmp_path: Path) -> dict[str, Path]:
    """A file for each client, where node finds the packages."""
    (tmp_path / "node_modules").symlink_to(Path(MODULES).resolve())
    files = {name: tmp_path / f"{number}.mjs" for number, name in enumerate(recipes())}
    for name, code in recipes().items():
        files[name].write_text(code)
    return files


@asynccontextmanager
async def follow(script: Path, yours: dict[str, str]) -> AsyncIterator[Follower]:
    assert NODE
    process = await asyncio.create_subprocess_exec(
        NODE, script, json.dumps(yours), stdout=PIPE, stderr=DEVNULL
    )
    try:
        yield Follower(process)
    finally:
        process.kill()
        await process.wait()


def begin(process: Process) -> dict[str, str]:
    """Return what a page knows when it has shown the ticket."""
    query = f'{{ ticket(id: "{PRINTER}") {{ changesCursor }} }}'
    response = httpx2.post(
        f"{process.origin}/graphql",
        json={"query": query},
        headers={"Authorization": f"Bearer {process.token}"},
    )
    return {
        "url": f"{process.origin}/graphql",
        "token": process.token,
        "ticketId": str(PRINTER),
        "changesCursor": response.json()["data"]["ticket"]["changesCursor"],
    }


def write(process: Process, messages: Sequence[int]) -> None:
    for message in messages:
        response = httpx2.put(
            f"{process.origin}/v1/crm/tickets/{PRINTER}/activity/{COMMENT}",
            json={"message": str(message)},
            headers={"Authorization": f"Bearer {process.token}"},
        )
        assert response.status_code == 200


def test_the_subscription_of_the_recipes_is_valid() -> None:
    [document] = re.findall(r"^const FOLLOW = `(.*?)`;$", SECTION, re.MULTILINE | re.DOTALL)

    assert not validate(build_schema((ROOT / "schema.graphql").read_text()), parse(document))


@pytest.mark.skipif(
    not (NODE and MODULES),
    reason="needs node, and RECIPES_NODE_MODULES to name a node_modules folder with the clients",
)
async def test_each_client_shows_each_change_once_through_restarts(
    scripts: dict[str, Path], tmp_path: Path
) -> None:
    database = tmp_path / "demo.db"
    with serve(database) as process:
        yours = begin(process)
    port = str(urlsplit(yours["url"]).port)
    async with AsyncExitStack() as stack, asyncio.timeout(300):
        followers = {
            name: await stack.enter_async_context(follow(script, yours))
            for name, script in scripts.items()
        }
        for number, end in enumerate(ENDS):
            with serve(database, port=port) as process:
                write(process, range(5 * number, 5 * number + 2))
                for follower in followers.values():
                    await follower.read_until(str(5 * number + 1))
                # Some of these are on their way when the service ends.
                write(process, range(5 * number + 2, 5 * number + 5))
                process.end(end)
        with serve(database, port=port) as process:
            for follower in followers.values():
                await follower.read_until(str(5 * len(ENDS) - 1))

    written = [str(number) for number in range(5 * len(ENDS))]
    shown = {name: follower.shown for name, follower in followers.items()}
    assert shown == dict.fromkeys(shown, written)
    assert len(shown) == 6


@pytest.mark.skipif(
    not (NODE and MODULES),
    reason="needs node, and RECIPES_NODE_MODULES to name a node_modules folder with the clients",
)
async def test_each_client_goes_on_with_a_fresh_token_when_the_first_one_expires(
    scripts: dict[str, Path], tmp_path: Path
) -> None:
    database, place = tmp_path / "demo.db", tmp_path / "token"
    for script in scripts.values():
        # The page's own variable, which it keeps up to date.
        code = script.read_text().replace("url, token, ticketId", "url, place, ticketId")
        read = 'Object.defineProperty(globalThis, "token", { get: () => readFileSync(place) });'
        imported = 'import { readFileSync } from "fs";\n'
        script.write_text(imported + code.replace(FIRST, FIRST + read))

    with serve(database) as process:
        place.write_text(await on(database, issue))
        yours = begin(process) | {"place": str(place)}
        async with AsyncExitStack() as stack, asyncio.timeout(60):
            followers = {
                name: await stack.enter_async_context(follow(script, yours))
                for name, script in scripts.items()
            }
            write(process, range(2))
            for follower in followers.values():
                await follower.read_until("1")
            token = place.read_text()
            place.write_text(process.token)
            await expire(database, token)
            await until_refused(process, token)
            write(process, range(2, 4))
            for follower in followers.values():
                await follower.read_until("3")

    shown = {name: follower.shown for name, follower in followers.items()}
    assert set(map(tuple, shown.values())) == {("0", "1", "2", "3")}
    assert len(shown) == 6


@pytest.mark.skipif(
    not (NODE and MODULES),
    reason="needs node, and RECIPES_NODE_MODULES to name a node_modules folder with the clients",
)
async def test_each_client_reads_the_timeline_anew_when_its_cursor_has_expired(
    scripts: dict[str, Path], tmp_path: Path
) -> None:
    database = tmp_path / "demo.db"
    with serve(database) as process:
        yours = begin(process)
        await on(database, partial(expire_cursors, before=utc_now()))
        async with AsyncExitStack() as stack, asyncio.timeout(60):
            followers = {
                name: await stack.enter_async_context(follow(script, yours))
                for name, script in scripts.items()
            }
            for follower in followers.values():
                await follower.read_until("read anew")
            write(process, range(2))
            for follower in followers.values():
                await follower.read_until("1")

    shown = {name: follower.shown for name, follower in followers.items()}
    assert set(map(tuple, shown.values())) == {("read anew", "0", "1")}
    assert len(shown) == 6


def issue(session: Session) -> str:
    token = create_token(
        session,
        name="soon over",
        actor_id=uuid4(),
        scopes=[Scope.READ],
        created_at=utc_now(),
        expires_at=utc_now() + timedelta(hours=1),
    )
    return token.text


async def expire(database: Path, token: str) -> None:
    def end(session: Session) -> None:
        row = session.get(AccessToken, parse_token(token).id)
        assert row
        row.expires_at = utc_now()

    await on(database, end)


async def on(database: Path, work: Callable[[Session], T]) -> T:
    opened = open_database(f"sqlite+aiosqlite:///{database}")
    try:
        return await opened.write(work)
    finally:
        await opened.close()


async def until_refused(process: Process, token: str) -> None:
    """Ask with a token until it has expired."""
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx2.AsyncClient(base_url=process.origin, headers=headers) as http:
        while (await http.get(f"/v1/crm/tickets/{PRINTER}/activity/{COMMENT}")).is_success:
            pass
