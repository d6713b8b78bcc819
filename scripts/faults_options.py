"""What a fault of `scripts/faults` is given, and what it finds."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.process import Process, serve


@dataclass(frozen=True, slots=True)
class Options:
    """How much of each fault. `serve` starts what `end_all` ends, whatever happened meanwhile."""

    rounds: int
    restarts: int
    seconds: float
    flips: int
    clients: int
    started: list[Process] = field(default_factory=list)

    def serve(self, database: Path, workers: int = 1, **how: Any) -> Process:
        process = serve(database, workers, **how)
        self.started.append(process)
        return process

    def end_all(self) -> None:
        for process in self.started:
            with process:
                pass
        self.started.clear()


@dataclass(frozen=True, slots=True)
class Found:
    """What a fault did, as one line, and what was wrong."""

    figure: str
    wrong: list[str]


class Skipped(Exception):
    """The fault cannot be made here. The message is the reason."""
