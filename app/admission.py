"""Lets a request in by its bearer token, and slows down addresses that send many without."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from ipaddress import IPv6Address, ip_address
from typing import Final

from starlette.types import Scope

from app.auth import Viewer
from app.authentication import Authenticate
from app.errors import RateLimited, Unauthenticated
from app.rate_limits import RateLimit

HELD_SECONDS: Final = 1.0
"""How much later an address is answered that has sent too many requests without a valid token."""

_MAX_HELD: Final = 1000
_MAX_HELD_PER_ADDRESS: Final = 50
_NETWORK_BITS: Final = 64


Admit = Callable[[Scope, str | None], Awaitable[Viewer]]
"""Returns who sent a request with that `Authorization`. Raises Unauthenticated and Busy."""


@dataclass(slots=True, eq=False)
class Admission:
    """Finds the viewer of a request.

    Only answers to requests without a valid token are held, after they were looked up: others
    behind the same address must not notice. `slowed` counts them.
    """

    authenticate: Authenticate
    failures: RateLimit
    slowed: int = 0
    _held: Counter[str] = field(default_factory=Counter)

    async def admit(self, scope: Scope, authorization: str | None) -> Viewer:
        """Return who sent the request. Raises Unauthenticated, RateLimited and Busy."""
        try:
            return await self.authenticate(authorization)
        except Unauthenticated:
            await self._slow_down(_network(scope))
            raise

    async def _slow_down(self, network: str) -> None:
        now = self.failures.clock()
        window = self.failures.window(network, now)
        sharing = self.failures.sharing
        # A flood from many addresses must not keep others waiting for Redis: what is not asked now
        # is told within a second.
        if sharing and not sharing.is_busy:
            await self.failures.learn(window)
        self.failures.charge(window, 1)
        if window.used <= self.failures.amount:
            return
        self.slowed += 1
        if self._held[network] >= _MAX_HELD_PER_ADDRESS or self._held.total() >= _MAX_HELD:
            raise RateLimited(
                "Too many requests without a valid token come from this address.",
                window.seconds_left(now),
            )
        self._held[network] += 1
        try:
            await asyncio.sleep(HELD_SECONDS)
        finally:
            self._held[network] -= 1
            if not self._held[network]:
                del self._held[network]


def _network(scope: Scope) -> str:
    """Return the address of the client; of IPv6 the network, all of which one client may have.

    All clients without an address are one: a proxy may pass on whatever text they invent.
    """
    try:
        address = ip_address(str((scope.get("client") or ("",))[0]))
    except ValueError:
        return ""
    if isinstance(address, IPv6Address):
        mapped = address.ipv4_mapped
        return str(mapped or int(address) >> _NETWORK_BITS)
    return str(address)
