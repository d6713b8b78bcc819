"""Shows for how long one request holds the event loop of a service.

Starts a service of one process on a database of its own, with a ticket of a hundred entries as
large as they may be, sends it the worst requests of each kind, one after the other, and measures
the processor time that the thread of the loop takes between two turns of a timer. Processor time,
since other work on the machine makes the wall clock useless; that of other threads of the service
is left out, so what waits for Python's lock is shown beside it as time of the wall clock.
"""

import argparse
import asyncio
import re
import signal
import socket
import sys
import time
from dataclasses import dataclass
from multiprocessing import Pipe, get_context
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final
from uuid import uuid4

import httpx2
from loop_attacks import Attack, Target, attacks, fill

from app.activity.values import utc_now
from app.auth import Scope
from app.server.server import serve_in_this_process
from app.settings import Settings
from app.store.database import open_database
from app.store.migrate import migrate
from app.store.tokens import create_token

LIMIT_MILLISECONDS: Final = 50
ROUNDS: Final = 3
"""The shortest round counts: other work on the machine can only make a round longer."""
TICK_SECONDS: Final = 0.001


@dataclass(slots=True)
class Meter:
    """Measures, on a running loop, the longest time between two turns of a timer."""

    loop: asyncio.AbstractEventLoop
    _cpu: float = 0.0
    _wall: float = 0.0
    _longest_cpu: float = 0.0
    _longest_wall: float = 0.0

    def start(self) -> None:
        self._cpu, self._wall = time.thread_time(), time.perf_counter()
        self._tick()

    def _tick(self) -> None:
        self._look()
        self.loop.call_later(TICK_SECONDS, self._tick)

    def _look(self) -> None:
        cpu, wall = time.thread_time(), time.perf_counter()
        self._longest_cpu = max(self._longest_cpu, cpu - self._cpu)
        self._longest_wall = max(self._longest_wall, wall - self._wall)
        self._cpu, self._wall = cpu, wall

    def take(self) -> tuple[float, float]:
        """Return the longest processor and wall time since the last call, in milliseconds."""
        self._look()  # the timer may be late: its turn comes after that of what is asked here
        longest = self._longest_cpu * 1000, self._longest_wall * 1000
        self._longest_cpu = self._longest_wall = 0.0
        return longest


def serve_measured(file: Path, asked: Connection) -> None:
    """Run the service in this process; say the port and a token, and then what the meter shows."""
    settings = Settings(database_url=f"sqlite+aiosqlite:///{file}").without_default_rate_limits()
    token = asyncio.run(prepare(settings))
    listener = socket.create_server(("127.0.0.1", 0))

    def begin() -> None:
        loop = asyncio.get_running_loop()
        meter = Meter(loop)
        meter.start()

        def answer() -> None:
            try:
                asked.recv()
            except EOFError:  # the script was ended
                loop.remove_reader(asked.fileno())
                signal.raise_signal(signal.SIGTERM)
            else:
                asked.send(meter.take())

        loop.add_reader(asked.fileno(), answer)
        asked.send((listener.getsockname()[1], token))

    serve_in_this_process(settings, listener, begin)


async def prepare(settings: Settings) -> str:
    database = open_database(settings.database_url)
    await migrate(database)
    token = await database.write(
        lambda session: create_token(
            session,
            name="loop",
            actor_id=uuid4(),
            scopes=set(Scope),
            created_at=utc_now(),
            expires_at=None,
        )
    )
    await database.close()
    return token.text


async def measure(attack: Attack, target: Target, meter: Connection) -> tuple[float, float, str]:
    held = []
    for number in range(ROUNDS):
        taken(meter)
        outcome = await attack(target, number)
        held.append(taken(meter))
    cpu, wall = (min(times) for times in zip(*held, strict=True))
    return cpu, wall, outcome


def taken(meter: Connection) -> tuple[float, float]:
    meter.send(None)
    cpu, wall = meter.recv()
    return cpu, wall


async def run(meter: Connection, wanted: str) -> bool:
    """Print a line for each attack. Return whether one held the loop for too long."""
    port, token = meter.recv()
    origin, headers = f"http://127.0.0.1:{port}", {"Authorization": f"Bearer {token}"}
    async with httpx2.AsyncClient(base_url=origin, headers=headers, timeout=60) as http:
        target = Target(origin, token, http)
        await fill(target)
        return await run_attacks(target, meter, wanted)


async def run_attacks(target: Target, meter: Connection, wanted: str) -> bool:
    is_too_long = False
    for name, attack in attacks().items():
        if not re.search(wanted, name):
            continue
        cpu, wall, outcome = await measure(attack, target, meter)
        is_over = cpu > LIMIT_MILLISECONDS
        is_too_long |= is_over
        mark = " <-- too long" if is_over else ""
        print(f"{cpu:7.1f} ms ({wall:7.1f})  {name:34} {outcome}{mark}", flush=True)
    return is_too_long


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="run attacks whose names match this pattern")
    options = parser.parse_args()
    meter, asked = Pipe()
    with TemporaryDirectory() as folder:
        serving = get_context("spawn").Process(
            target=serve_measured, args=(Path(folder) / "loop.db", asked)
        )
        serving.start()
        asked.close()
        try:
            return asyncio.run(run(meter, options.only))
        finally:
            serving.terminate()
            serving.join()


if __name__ == "__main__":
    sys.exit(main())
