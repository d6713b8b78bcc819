"""What is counted and measured while the service runs, in plain numbers.

Whoever counts keeps its own numbers; `app.metrics` reads them when somebody asks.
"""

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Final

SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SIZES: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0)

_MAX_OPERATIONS: Final = 200
_MAX_NAME: Final = 100
DOORS: Final = ("graphql", "websocket", "sse", "rest", "other")
OTHER: Final = "(other)"
"""The operation of requests whose own name is one too many."""


class Histogram:
    """Counts values by the smallest bound that holds them; the last count is of larger ones."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


RequestKey = tuple[str, str, int]
"""Door, operation and status."""


@dataclass(slots=True, eq=False)
class Requests:
    """Durations and sizes of responses. Names of operations are chosen by clients, so bounded."""

    durations: dict[RequestKey, Histogram] = field(default_factory=dict)
    sizes: dict[RequestKey, int] = field(default_factory=dict)
    limited: dict[str, int] = field(default_factory=lambda: dict.fromkeys(DOORS, 0))
    """Requests over a limit of rates, by door."""
    _operations: set[str] = field(default_factory=set)

    def note(self, key: RequestKey, seconds: float, size: int) -> None:
        histogram = self.durations.get(key)
        if histogram is None:
            key, histogram = self._new(key)
        histogram.observe(seconds)
        self.sizes[key] += size

    def _new(self, key: RequestKey) -> tuple[RequestKey, Histogram]:
        door, operation, status = key
        if operation in self._operations or self._has_room(operation):
            self._operations.add(operation)
        else:
            key = (door, OTHER, status)
        self.sizes.setdefault(key, 0)
        return key, self.durations.setdefault(key, Histogram(SECONDS))

    def _has_room(self, operation: str) -> bool:
        return len(self._operations) < _MAX_OPERATIONS and len(operation) <= _MAX_NAME
