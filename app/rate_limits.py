"""Limits what one token may ask for in a minute: requests, and the cost of its operations.

The minute of a token begins with its first request, and the counts are in memory. Processes that
are given `app.shared_counts` tell each other of theirs. `app.admission` counts addresses so.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from math import ceil
from typing import Final, Protocol

from starlette.types import Scope

from app.auth import Viewer
from app.errors import RateLimited

WINDOW_SECONDS: Final = 60

REFUSED_CHARACTERS: Final = 20
"""A document that is refused costs 1 for each so many characters: reading it took time, too."""

_MAX_WINDOWS: Final = 10_000

Header = tuple[bytes, bytes]


class Sharing(Protocol):
    """Tells other processes what was counted here, and learns what they counted."""

    @property
    def is_busy(self) -> bool:
        """Whether who asks now has to wait until others have been answered."""

    def note(self, window: "Window") -> None:
        """Tell the count of the window within a second."""

    def is_due(self, window: "Window") -> bool:
        """Return whether to ask the others now, before more is counted here."""

    async def tell(self, window: "Window") -> None:
        """Raises nothing: where nobody can be told, the window keeps its own count."""


@dataclass(slots=True, eq=False)
class Window:
    """What one token, or address, has used of one limit in the minute that ends at `ends_at`.

    `untold` of it has not been told to other processes, `told_at` is when they were told last, and
    `telling` tells them now.
    """

    limit: "RateLimit"
    key: str
    ends_at: float
    used: int = 0
    untold: int = 0
    told_at: float | None = None
    telling: "asyncio.Task[None] | None" = None

    @property
    def remaining(self) -> int:
        return max(0, self.limit.amount - self.used)

    def seconds_left(self, now: float) -> int:
        return max(1, ceil(self.ends_at - now))


@dataclass(slots=True, eq=False)
class RateLimit:
    """An amount that each key, a token or an address, may use in a minute. `clock` is monotonic."""

    name: str
    amount: int
    clock: Callable[[], float]
    sharing: Sharing | None = None
    _windows: OrderedDict[str, Window] = field(default_factory=OrderedDict)

    def window(self, key: str, now: float) -> Window:
        """Return the window that the key is in, perhaps a new one."""
        window = self._windows.get(key)
        if window is None or now >= window.ends_at:
            self._windows.pop(key, None)
            window = self._windows[key] = Window(self, key, now + WINDOW_SECONDS)
            if len(self._windows) > _MAX_WINDOWS:
                self._windows.popitem(last=False)
        return window

    async def take(self, window: Window, amount: int) -> None:
        """Use an amount of what is left. Raises RateLimited, and then nothing is used."""
        await self.learn(window)
        if window.used + amount > self.amount:
            seconds = window.seconds_left(self.clock())
            raise RateLimited(
                f"The token has {window.remaining:,} of its {self.amount:,} {self.name} a minute "
                f"left, and this takes {amount:,}; send it again in {seconds} seconds.",
                seconds,
            )
        self.charge(window, amount)

    async def learn(self, window: Window) -> None:
        """Learn what other processes have counted, where it is time to ask them."""
        # Others may have counted on while this request waited.
        while self.sharing and self.sharing.is_due(window):
            await self.sharing.tell(window)

    def charge(self, window: Window, amount: int) -> None:
        """Use an amount, also where less is left."""
        window.used += amount
        if self.sharing:
            window.untold += amount
            self.sharing.note(window)


@dataclass(slots=True, eq=False)
class Quota:
    """What the token of a request has left. `spent` is what the request has cost so far."""

    counted_at: float
    windows: list[Window]
    cost: Window | None
    policies: bytes
    spent: int = 0

    def headers(self) -> tuple[Header, Header]:
        """Return the fields of draft-ietf-httpapi-ratelimit-headers-11."""
        now = self.counted_at
        left = [
            f'"{window.limit.name}";r={window.remaining};t={window.seconds_left(now)}'
            for window in self.windows
        ]
        return (b"ratelimit", ", ".join(left).encode()), (b"ratelimit-policy", self.policies)


class RateLimits:
    """The limits of all tokens, at least one. Each request is counted, then it may spend."""

    def __init__(
        self, clock: Callable[[], float], requests: RateLimit | None, cost: RateLimit | None
    ) -> None:
        self._clock = clock
        self._requests = requests
        self._cost = cost
        self._limits = [limit for limit in (requests, cost) if limit]
        self._policies = ", ".join(
            f'"{limit.name}";q={limit.amount};w={WINDOW_SECONDS}' for limit in self._limits
        ).encode()

    async def count(self, scope: Scope, viewer: Viewer) -> None:
        """Count a request. Raises RateLimited."""
        now = self._clock()
        windows = [limit.window(viewer.token_id, now) for limit in self._limits]
        cost = windows[-1] if self._cost else None
        scope["state"]["quota"] = Quota(now, windows, cost, self._policies)
        if self._requests:
            await self._requests.take(windows[0], 1)

    async def spend(self, scope: Scope, cost: int) -> None:
        """Spend the cost of an operation that is about to be executed. Raises RateLimited."""
        quota: Quota = scope["state"]["quota"]
        if quota.cost:
            await quota.cost.limit.take(quota.cost, cost)
        quota.spent += cost

    def spend_refused(self, scope: Scope, characters: int) -> None:
        """Charge for a document of that length that was read and refused."""
        quota: Quota = scope["state"]["quota"]
        if quota.cost:
            quota.cost.limit.charge(quota.cost, 1 + characters // REFUSED_CHARACTERS)
