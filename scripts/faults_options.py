"""What a fault of `scripts/faults` is given, and what it finds."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Options:
    """How much of each fault."""

    rounds: int
    restarts: int
    seconds: float
    flips: int
    clients: int


@dataclass(frozen=True, slots=True)
class Found:
    """What a fault did, as one line, and what was wrong."""

    figure: str
    wrong: list[str]


class Skipped(Exception):
    """The fault cannot be made here. The message is the reason."""
