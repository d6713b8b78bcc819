"""Faults of processes: killed, restarted, two at once, and with a clock that steps back."""

import asyncio
import os
import random
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, Final

import httpx2
from faults_options import Found, Options

from tests.support.load import Load, free_port, graphql, stored_in, under_load, wait_until_served
from tests.support.process import Process, environment, passing

KNOCKERS: Final = 2
ALLOWED_SECONDS: Final = 60
"""How long a start may take, on a machine that does other things too."""

PAGE: Final = """
query Page($id: ID!, $after: String) {
  ticket(id: $id) {
    activities(first: 50, after: $after) {
      nodes { id createdAt } pageInfo { endCursor hasNextPage } } } }
"""


def url_of(file: Path) -> str:
    return environment(file)["TICKET_ACTIVITY_DATABASE_URL"]


async def kill(options: Options, folder: Path, *, workers: int) -> Found:
    """Kill the service at random moments of its writes, and start it again each time.

    Of several workers one is killed first, and what is left a moment later.
    """
    chance = random.Random()  # noqa: S311
    file, port, log = folder / "tickets.db", str(free_port()), folder / "log"

    def start() -> Process:
        # In a process group of its own, which is killed as one.
        return options.serve(file, workers, within=["setsid"], port=port, log=log)

    process = start()
    seconds: list[float] = []
    try:
        async with under_load([process.origin], process.token, options.clients) as load:
            load.is_disturbed = True
            for _ in range(options.rounds):
                await asyncio.sleep(chance.uniform(0.2, 1.2))
                if workers > 1:
                    os.kill(chance.choice(sorted(process.workers)), signal.SIGKILL)
                    await asyncio.sleep(chance.uniform(0, 0.5))
                kill_all(process)
                began = time.monotonic()
                process = await asyncio.to_thread(start)
                await wait_until_served(load)
                seconds.append(time.monotonic() - began)
            wrong = await load.finish(url_of(file))
    finally:
        with process:
            pass
    figure = (
        f"{options.rounds} kills of {workers} process{'es' if workers > 1 else ''}, "
        f"{len(load.acknowledged):,} acknowledged writes looked up, {load.told:,} changes told "
        f"over {load.resumed} resumed streams, serving again after {median(seconds):.1f} s "
        f"(at most {max(seconds):.1f} s)"
    )
    return Found(figure, wrong)


def kill_all(process: Process) -> None:
    """Kill the service and its workers at once, so that none can finish anything."""
    os.killpg(process.popen.pid, signal.SIGKILL)
    process.popen.wait()
    if process.popen.stdout:
        process.popen.stdout.close()


async def restart(options: Options, folder: Path) -> Found:
    """Start a successor on the same socket, then end the service by SIGTERM, again and again."""
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:

        def start() -> Process:
            passed = [listener.fileno()]
            within = passing(listener)
            return options.serve(
                folder / "tickets.db", within=within, pass_fds=passed, log=folder / "log"
            )

        async def replace(process: Process) -> Process:
            successor = await asyncio.to_thread(start)
            if status := await asyncio.to_thread(process.end, signal.SIGTERM):
                raise AssertionError(f"it ended with {status}")
            with process:
                return successor

        return await _go_on("restarts by SIGTERM", options, folder, start(), replace)


async def reload(options: Options, folder: Path) -> Found:
    """Replace both workers of a service by SIGHUP, again and again."""

    async def replace(process: Process) -> Process:
        before = process.workers
        process.popen.send_signal(signal.SIGHUP)
        async with asyncio.timeout(ALLOWED_SECONDS):
            while before & process.workers or len(process.workers) < len(before):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        return process

    process = options.serve(folder / "tickets.db", 2, log=folder / "log")
    return await _go_on("reloads of 2 workers by SIGHUP", options, folder, process, replace)


async def _go_on(
    what: str, options: Options, folder: Path, process: Process, replace: Callable[[Process], Any]
) -> Found:
    """Replace a process under load, which must not notice: no error, no reset, nothing lost."""
    try:
        async with under_load([process.origin], process.token, options.clients) as load:
            knocking = [asyncio.create_task(_knock(load)) for _ in range(KNOCKERS)]
            for _ in range(options.restarts):
                await asyncio.sleep(0.5)
                process = await replace(process)
            wrong = await load.finish(url_of(folder / "tickets.db"))
            knocks = sum(await asyncio.gather(*knocking))
    finally:
        with process:
            pass
    figure = (
        f"{options.restarts} {what}, {load.outcomes.total():,} requests and {knocks:,} on new "
        f"connections answered, none reset, {len(load.acknowledged):,} acknowledged writes looked "
        f"up, {load.told:,} changes told over {load.resumed} resumed streams"
    )
    return Found(figure, wrong)


async def _knock(load: Load) -> int:
    """Ask on a new connection each time; return how often."""
    count = 0
    while not load.is_over:
        count += 1
        try:
            async with load.client(0) as http:
                response = await http.get("/healthz")
            if response.status_code != httpx2.codes.OK:
                load.unexpected.append(f"/healthz was answered {response.status_code}")
        except httpx2.TransportError as error:
            load.unexpected.append(f"a new connection: {error!r}")
        await asyncio.sleep(0.005)
    return count


async def two_services(options: Options, folder: Path) -> Found:
    """Let two services that know nothing of each other write to one file."""
    file = folder / "tickets.db"
    with (
        options.serve(file, log=folder / "log") as one,
        options.serve(file, log=folder / "log") as other,
    ):
        origins = [one.origin, other.origin]
        async with under_load(origins, one.token, options.clients) as load:
            await asyncio.sleep(options.seconds)
            wrong = await load.finish(url_of(file))
    figure = (
        f"2 services on one file for {options.seconds:g} s, {len(load.acknowledged):,} "
        f"acknowledged writes looked up, {load.told:,} changes told to subscribers of either, "
        f"{load.outcomes['VERSION_CONFLICT']:,} conflicts told"
    )
    return Found(figure, wrong)


CLOCK: Final = """
from datetime import timedelta
from pathlib import Path
try:
    from app.activity import values
except ImportError:
    pass  # a tool of the installation
else:
    real = values.utc_now
    values.utc_now = lambda: real() + timedelta(hours=float(Path({file!r}).read_text()))
"""
"""Python runs a module `sitecustomize` before anything else. This one moves the service's clock."""


async def clock_back(options: Options, folder: Path) -> Found:
    """Let the clock of a service under load step back an hour."""
    file, clock = folder / "tickets.db", folder / "clock"
    clock.write_text("1")
    (folder / "sitecustomize.py").write_text(CLOCK.format(file=str(clock)))
    within = ["env", f"PYTHONPATH={folder}"]
    with options.serve(file, within=within, log=folder / "log") as process:
        async with under_load([process.origin], process.token, options.clients) as load:
            await asyncio.sleep(options.seconds / 2)
            before = len(load.acknowledged)
            (folder / "next").write_text("0")
            (folder / "next").replace(clock)  # at once: the service reads it all the time
            await asyncio.sleep(options.seconds / 2)
            after = len(load.acknowledged) - before
            wrong = await load.finish(url_of(file))
            wrong += await _wrong_pages(load, url_of(file))
    figure = (
        f"{before:,} writes before the clock stepped back an hour and {after:,} after it looked "
        f"up, {load.told:,} changes told, times in order on {len(load.tickets)} tickets, all pages "
        "complete"
    )
    return Found(figure, wrong)


async def _wrong_pages(load: Load, url: str) -> list[str]:
    """Return the tickets whose pages are not their entries in the order of their creation."""
    stored = await stored_in(url)
    wrong: list[str] = []
    async with load.client(0) as http:
        for ticket_id in load.tickets:
            nodes: list[Any] = []
            after, has_more = None, True
            while has_more:
                _, ticket = await graphql(http, PAGE, id=ticket_id, after=after)
                nodes += ticket["activities"]["nodes"]
                page = ticket["activities"]["pageInfo"]
                after, has_more = page["endCursor"], page["hasNextPage"]
            there = {
                str(row.activity_id)
                for row in stored.changes
                if str(row.ticket_id) == ticket_id and stored.entries[row.activity_id][-1] is None
            }
            ids = [node["id"] for node in nodes]
            times = [node["createdAt"] for node in nodes]
            if len(ids) != len(set(ids)) or set(ids) != there or times != sorted(times):
                wrong.append(f"the pages of {ticket_id}")
    return wrong
