"""The recipes of README.md: each client, as its users have it, loses and repeats nothing."""

import asyncio
import json
import os
import re
import shutil
import signal
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest
from graphql import build_schema, parse, validate

from app.demo import COMMENT, PRINTER
from tests.support.process import ROOT, Process, serve

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
"""
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
    for name in ("Apollo Client 4", "urql 5", "Relay"):
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
