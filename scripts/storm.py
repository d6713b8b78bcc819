"""Writes through several processes on one PostgreSQL, kills them and it, and looks what is there.

Starts a PostgreSQL with its usual durability and processes of the service on one database. Clients
write and follow (`tests/support/load.py`), first undisturbed, then while in each round a process of
the service, a process of PostgreSQL, or all of PostgreSQL is killed. At the end it looks whether
anything is lost. Everything is bounded and on loopback.
"""

import argparse
import asyncio
import os
import random
import signal
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from statistics import median
from typing import Final

import asyncpg

from tests.support.load import free_port, under_load, wait_until_served
from tests.support.postgresql import StartedServer, running_postgresql
from tests.support.process import Process, serve

COLD: Final = 40
ALLOWED_RECOVERY_SECONDS: Final = 15


@dataclass(slots=True, eq=False)
class Machine:
    """The PostgreSQL and the processes of the service that are killed."""

    server: StartedServer
    url: str
    ports: list[int]
    processes: list[Process] = field(default_factory=list)

    def start(self, number: int) -> Process:
        return serve(
            self.url, port=str(self.ports[number]), log=self.server.data.parent / "service"
        )

    async def disturb(self, round_: int) -> str:
        """Kill something and start it again; return what."""
        if round_ % 3 == 0:
            number = round_ % len(self.processes)
            self.processes[number].popen.kill()
            self.processes[number].popen.wait()
            self.processes[number] = await asyncio.to_thread(self.start, number)
            return "a process of the service"
        if round_ % 3 == 1:
            os.kill(await self._backend(), signal.SIGKILL)
            return "a process of PostgreSQL"
        self.server.stop(signal.SIGQUIT)
        await asyncio.to_thread(self.server.start)
        return "PostgreSQL"

    async def _backend(self) -> int:
        connection = await asyncpg.connect(self.url.replace("+asyncpg", "", 1))
        try:
            pids = await connection.fetch(
                "SELECT pid FROM pg_stat_activity WHERE application_name = 'ticket-activity'"
            )
        finally:
            await connection.close()
        return int(random.choice(pids)["pid"])  # noqa: S311


async def run(options: argparse.Namespace, machine: Machine) -> list[str]:
    origins = [process.origin for process in machine.processes]
    token = machine.processes[0].token
    recoveries: dict[str, list[float]] = {}
    async with under_load(origins, token, options.clients, cold=COLD) as load:
        await asyncio.sleep(options.seconds)
        print(
            f"undisturbed, {options.seconds:g} s, {load.outcomes['ok'] / options.seconds:.0f} "
            f"writes a second: {dict(load.outcomes)}",
            flush=True,
        )
        load.is_disturbed = True
        for round_ in range(options.rounds):
            began = time.monotonic()
            what = await machine.disturb(round_)
            started = time.monotonic() - began
            await wait_until_served(load)
            seconds = time.monotonic() - began
            recoveries.setdefault(what, []).append(seconds)
            print(
                f"round {round_ + 1}: {what} was killed, and started again after {started:.1f} s; "
                f"every process writes after {seconds:.1f} s",
                flush=True,
            )
            if seconds - started > ALLOWED_RECOVERY_SECONDS:
                load.unexpected.append(f"{seconds - started:.1f} s without writes after a start")
            await asyncio.sleep(1)
        wrong = await load.finish(machine.url)
    looked_up = len(load.acknowledged) + len(load.deleted)
    print(f"{looked_up:,} acknowledged writes looked up")
    print(
        f"in all: {dict(load.outcomes)}; {load.told:,} changes told, {load.resumed} times resumed"
    )
    for what, taken in recoveries.items():
        print(
            f"{what}, killed {len(taken)} times: every process writes after {min(taken):.1f} to "
            f"{max(taken):.1f} s, median {median(taken):.1f} s"
        )
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="how long undisturbed")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=20, help="how often something is killed")
    parser.add_argument("--postgresql", type=int, default=18, help="the version: 16 or 18")
    options = parser.parse_args()
    with ExitStack() as stack:
        server = stack.enter_context(
            running_postgresql(options.postgresql, ["max_connections=200"])
        )
        machine = Machine(server, server.url, [free_port() for _ in range(options.processes)])
        for number in range(options.processes):
            machine.processes.append(machine.start(number))
        try:
            wrong = asyncio.run(run(options, machine))
        finally:
            for process in machine.processes:
                with process:
                    pass
    for line in wrong[:20]:
        print(f"WRONG: {line}", file=sys.stderr)
    print("nothing is wrong" if not wrong else f"{len(wrong)} things are wrong")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
