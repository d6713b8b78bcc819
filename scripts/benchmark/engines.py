"""Measures the service on SQLite and on PostgreSQL, and what subscribers cost writes there.

PostgreSQL is that of the tests' wheel, with its usual durability, on the same machine.
"""

import asyncio
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any, Final

import uvloop

from benchmark import contenders
from benchmark.contenders import Server
from benchmark.dataset import Dataset, read_dataset
from benchmark.delivery import DELIVERY, open_subscribers
from benchmark.load import Answers, Workload, put_load
from benchmark.operations import OPERATIONS, SERVICE, operation
from tests.support.postgresql import running_postgresql

CLIENTS: Final = 64
SUBSCRIBERS: Final = 100
_ROUNDS: Final = 3
_READ_SECONDS: Final = 0.02
"""Time between two looks of the subscribers at what has arrived."""
_DURABLE: Final = ["max_connections=200"]


@dataclass(frozen=True)
class Engine:
    """The service on an engine, by so many processes."""

    name: str
    server: Server


@dataclass(frozen=True)
class Measurement:
    """What the service did on one engine; `of_sqlite` is its rate as a part of that on SQLite."""

    engine: str
    operation: str
    good: int
    bad: int
    per_second: float
    p50_ms: float
    p99_ms: float
    cpu_ms: float
    of_sqlite: float
    first_bad: str


@dataclass(frozen=True)
class Listening:
    """Writes a second without subscribers and with some, in turn; the ratio of the medians.

    `tickets` are written to, SUBSCRIBERS of them have a subscriber. `client_cores` is how much of
    the machine's processors the subscribers themselves took from the service.
    """

    engine: str
    tickets: int
    alone: float
    with_subscribers: float
    ratio: float
    client_cores: float
    bad: int


@dataclass(frozen=True)
class Bench:
    """What is asked of the engines, and for how long."""

    data: Dataset
    token: str
    seconds: float
    folder: Path

    def put(self, server: Server, name: str, tag: str) -> Answers:
        asked = operation(name, SERVICE, self.data, tag)
        workload = Workload(asked, server.port, self.token, self.data.entries, None)
        return put_load(workload, CLIENTS, self.seconds, self.folder)

    def measure(self, engine: Engine, name: str) -> dict[str, Any]:
        cpu = engine.server.cpu_seconds()
        found = self.put(engine.server, name, f"{name} on {engine.name}")
        return {
            "engine": engine.name,
            "operation": name,
            "good": found.good,
            "bad": found.bad,
            "per_second": found.good / found.seconds,
            "p50_ms": found.p50_ms,
            "p99_ms": found.p99_ms,
            "cpu_ms": (engine.server.cpu_seconds() - cpu) * 1000 / max(1, found.good),
            "first_bad": found.first_bad,
        }

    def listen(self, engine: Engine, tickets: int) -> Listening:
        """Update entries of so many tickets with nobody listening and with subscribers, in turn."""
        few = replace(self, data=replace(self.data, entries=self.data.entries[:tickets]))
        alone: list[Answers] = []
        heard: list[Answers] = []
        cores: list[float] = []
        for round_ in range(_ROUNDS):
            alone.append(few.put(engine.server, "update", f"alone {round_}"))
            put = partial(few.put, engine.server, "update", f"heard {round_}")
            answers, taken = uvloop.run(self._with_subscribers(engine.server.port, put))
            heard.append(answers)
            cores.append(taken / answers.seconds)
        rate, heard_rate = (
            median(one.good / one.seconds for one in found) for found in (alone, heard)
        )
        bad = sum(one.bad for one in (*alone, *heard))
        return Listening(
            engine.name,
            len(few.data.entries),
            alone=rate,
            with_subscribers=heard_rate,
            ratio=heard_rate / rate,
            client_cores=median(cores),
            bad=bad,
        )

    async def _with_subscribers(self, port: int, put: Any) -> tuple[Answers, float]:
        """Return the answers, and the processor time that the subscribers took meanwhile."""
        subscribers = await open_subscribers(port, self.token, self.data.entries, SUBSCRIBERS)
        began = time.process_time()
        putting = asyncio.create_task(asyncio.to_thread(put))
        while not putting.done():
            # Woken by each message they would take more of this machine, which others would not.
            time.sleep(_READ_SECONDS)  # noqa: ASYNC251
            await asyncio.sleep(0)
        answers: Answers = await putting
        taken = time.process_time() - began
        if not any(one.changes for one in subscribers):
            raise RuntimeError("The subscribers were told nothing.")
        for one in subscribers:
            one.transport.close()
        return answers, taken


@contextmanager
def running_engines(file: Path) -> Iterator[list[Engine]]:
    """Run the service on a file of SQLite, and on copies of it in PostgreSQL."""
    with ExitStack() as stack:
        postgresql = stack.enter_context(running_postgresql(settings=_DURABLE))
        contenders.copy(file, postgresql.url)
        serve = partial(contenders.serve, file)
        found = [
            Engine("SQLite", stack.enter_context(serve())),
            Engine("PostgreSQL", stack.enter_context(serve(database_url=postgresql.url))),
            Engine(
                "PostgreSQL, 2 processes",
                stack.enter_context(serve(workers=2, database_url=postgresql.url)),
            ),
        ]
        yield found


def measure_engines(
    file: Path, token: str, names: list[str], seconds: float, folder: Path
) -> dict[str, Any]:
    """Measure the engines in turn at each operation, so that what disturbs one disturbs all.

    `names` are operations, and `delivery` for what subscribers cost writes.
    """
    bench = Bench(read_dataset(file), token, seconds, folder)
    found: list[Measurement] = []
    with running_engines(file) as engines:
        for engine, name in product(engines, names):
            # Opens connections, prepares statements, compiles operations.
            bench.put(engine.server, "update" if name == DELIVERY else name, "first")
        for name in filter(OPERATIONS.__contains__, names):
            measured = [bench.measure(engine, name) for engine in engines]
            unit = measured[0]["per_second"]
            found += [Measurement(**one, of_sqlite=one["per_second"] / unit) for one in measured]
        listening = [
            bench.listen(engine, tickets)
            for tickets in (len(bench.data.entries), SUBSCRIBERS)
            for engine in engines
            if DELIVERY in names
        ]
    return {
        "engines": [asdict(one) for one in found],
        "listening": [asdict(one) for one in listening],
    }
