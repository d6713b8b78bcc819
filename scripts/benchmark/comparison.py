"""Measures the contenders side by side."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from benchmark import contenders
from benchmark.contenders import Server
from benchmark.dataset import Dataset, read_dataset
from benchmark.load import Workload, put_load
from benchmark.operations import (
    SERVICE,
    TEXTBOOK,
    WRITES,
    Operation,
    ceiling_operation,
    operation,
)


@dataclass(frozen=True)
class Measurement:
    """What one contender did at one operation for so many clients."""

    operation: str
    clients: int
    contender: str
    good: int
    bad: int
    per_second: float
    p50_ms: float
    p99_ms: float
    cpu_ms: float
    """CPU time of the server for each right answer."""
    memory_mib: float
    first_bad: str


@dataclass(frozen=True)
class Contender:
    """A server and how it is asked."""

    name: str
    server: Server
    ask: Callable[[str, Dataset, str], Operation]


@dataclass(frozen=True)
class Comparison:
    """All contenders, running, and what they are asked about."""

    contenders: list[Contender]
    data: Dataset
    token: str
    folder: Path
    log: Path
    """Where the service's right answers to writes are kept."""

    @classmethod
    def start(cls, folder: Path, file: Path, token: str, servers: ExitStack) -> Self:
        """Start each contender on the activities of a database of the service."""
        textbook = contenders.serve_textbook(file, folder / "textbook.db")
        found = [
            Contender("service", servers.enter_context(contenders.serve(file)), _ask_service),
            Contender("textbook", servers.enter_context(textbook), _ask_textbook),
            Contender("ceiling", servers.enter_context(contenders.serve_ceiling()), _ask_ceiling),
        ]
        return cls(found, read_dataset(file), token, folder, folder / "acknowledged")

    def measure(self, name: str, clients: int, seconds: float) -> list[Measurement]:
        """Measure one contender after the other."""
        tag = f"{name} by {clients}"
        return [self._measure(one, name, tag, clients, seconds) for one in self.contenders]

    def _measure(
        self, contender: Contender, name: str, tag: str, clients: int, seconds: float
    ) -> Measurement:
        server, asked = contender.server, contender.ask(name, self.data, tag)
        is_logged = contender.name == "service" and name in WRITES
        log = self.log if is_logged else None
        workload = Workload(asked, server.port, self.token, self.data.entries, log)
        cpu = server.cpu_seconds()
        answers = put_load(workload, clients, seconds, self.folder)
        return Measurement(
            operation=name,
            clients=clients,
            contender=contender.name,
            good=answers.good,
            bad=answers.bad,
            per_second=answers.good / answers.seconds,
            p50_ms=answers.p50_ms,
            p99_ms=answers.p99_ms,
            cpu_ms=(server.cpu_seconds() - cpu) * 1000 / max(1, answers.good),
            memory_mib=server.memory_mib(),
            first_bad=answers.first_bad,
        )


def _ask_service(name: str, data: Dataset, tag: str) -> Operation:
    return operation(name, SERVICE, data, tag)


def _ask_textbook(name: str, data: Dataset, tag: str) -> Operation:
    return operation(name, TEXTBOOK, data, tag)


def _ask_ceiling(name: str, data: Dataset, tag: str) -> Operation:
    return ceiling_operation(operation(name, SERVICE, data, tag))
