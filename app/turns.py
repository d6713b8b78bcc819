"""Shares the processor between tokens: when several compete, the one that has used more waits.

Requests of all tokens run on one event loop, so a token with many clients, or with expensive
requests, would take nearly all of its time from the others. Here each token is charged for the
processor time of its requests. While requests of several tokens are in work, a token that has used
more than its share of late gets one turn every FORCED_SECONDS, and more as soon as its share
allows it. A token that is alone never waits.
"""

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Coroutine, Generator
from dataclasses import dataclass, field
from types import coroutine
from typing import Any, Final, TypeVar

from app.errors import Busy

T = TypeVar("T")

FORCED_SECONDS: Final = 0.05
"""Time between two turns that tokens get although they are over their share."""

TOLERANCE_SECONDS: Final = 0.02
"""Processor time beyond its share that a token may use without waiting."""

HALF_LIFE_SECONDS: Final = 1.0
"""After this time used processor time counts half."""

MAX_WAITING: Final = 1000
"""Requests of one token that may wait for a turn; each can hold a body in memory."""

_MAX_ACCOUNTS: Final = 10_000
_NEGLIGIBLE_SECONDS: Final = 1e-4
_LONG_STEP_SECONDS: Final = 0.004
_LONG_STEP_FACTOR: Final = 4
_NEXT_SECONDS: Final = 0.001
"""Time between two requests of a token that begin because it is alone."""


@dataclass(slots=True, eq=False)
class _Account:
    """What one token has used (in seconds, at the time `Turns._scale` refers to), and its queue."""

    used: float = 0
    in_work: int = 0
    waiting: "deque[asyncio.Future[None]]" = field(default_factory=deque)

    def admit(self) -> bool:
        """Let the first request that still waits begin; False if there is none."""
        while self.waiting:
            waiter = self.waiting.popleft()
            if not waiter.done():
                self.in_work += 1
                waiter.set_result(None)
                return True
        return False


@dataclass(slots=True, eq=False)
class Turns:
    """Gives requests their turns. It lives on one event loop."""

    max_wait_seconds: float
    _accounts: OrderedDict[str, _Account] = field(default_factory=OrderedDict)
    _working: int = 0
    """Tokens with requests in work."""
    _total: float = 0
    """What all tokens have used."""
    _decayed_at: float = field(default_factory=time.monotonic)
    _waiting: OrderedDict[str, _Account] = field(default_factory=OrderedDict)
    _timer: asyncio.TimerHandle | None = None
    _next: asyncio.TimerHandle | None = None

    async def run(self, token_id: str, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in a turn of the token, and charge the token for its processor time.

        Raises Busy where too many requests of the token wait, or this one waited for too long.
        """
        self._decay()  # before the account is made: it drops those that are not in use
        account = self._account(token_id)
        if self._may_begin(account) and not account.waiting:
            self._begin(account)
        else:
            try:
                await self._wait(token_id, account)
            except BaseException:
                work.close()
                raise
        try:
            result: T = await _metered(work, self, account)
            return result
        finally:
            self._end(account)

    def charge(self, token_id: str, seconds: float) -> None:
        """Charge a token for processor time that was spent for it on another thread."""
        self._add(self._account(token_id), seconds)

    def _account(self, token_id: str) -> _Account:
        account = self._accounts.get(token_id)
        if account is None:
            account = self._accounts[token_id] = _Account()
            self._drop_oldest()
        return account

    def _drop_oldest(self) -> None:
        if len(self._accounts) <= _MAX_ACCOUNTS:
            return
        token_id, oldest = self._accounts.popitem(last=False)
        if oldest.in_work or oldest.waiting:
            self._accounts[token_id] = oldest
        else:
            self._total -= oldest.used

    def _may_begin(self, account: _Account) -> bool:
        """Whether the token is alone, or has used no more than its share."""
        others = self._others(account)
        if not others:
            return True
        return account.used <= self._total / (others + 1) + TOLERANCE_SECONDS

    def _others(self, account: _Account) -> int:
        """Count the other tokens with requests in work."""
        return self._working - (account.in_work > 0)

    def _begin(self, account: _Account) -> None:
        account.in_work += 1
        self._working += account.in_work == 1

    def _end(self, account: _Account) -> None:
        account.in_work -= 1
        if not account.in_work:
            self._working -= 1
        if self._waiting:
            self._admit_waiting()

    async def _wait(self, token_id: str, account: _Account) -> None:
        if len(account.waiting) >= MAX_WAITING:
            raise Busy(f"{MAX_WAITING} requests of the token are waiting; send it again.")
        waiter = asyncio.get_running_loop().create_future()
        account.waiting.append(waiter)
        self._waiting[token_id] = account
        self._start_timer()
        try:
            async with asyncio.timeout(self.max_wait_seconds):
                await waiter
        except BaseException as error:
            if waiter.done() and not waiter.cancelled():
                self._end(account)  # its turn had come already
            if isinstance(error, TimeoutError):
                raise Busy("Other tokens need the service too; send the request again.") from None
            raise

    def _admit_waiting(self) -> None:
        """Let the first request of a token begin whose share allows it."""
        token_id, account = next(iter(self._waiting.items()))
        if not self._may_begin(account):
            self._waiting.move_to_end(token_id)
            return
        self._admit(token_id, account)
        if account.waiting and not self._next and not self._others(account):
            # The token is alone, perhaps only until the answer before has reached its client. So
            # the others do not all begin at once.
            loop = asyncio.get_running_loop()
            self._next = loop.call_later(_NEXT_SECONDS, self._admit_next)

    def _admit_next(self) -> None:
        self._next = None
        if self._waiting:
            self._admit_waiting()

    def _admit(self, token_id: str, account: _Account) -> None:
        was_idle = not account.in_work
        if account.admit():
            self._working += was_idle
            self._waiting.move_to_end(token_id)
        if not account.waiting:
            del self._waiting[token_id]

    def _start_timer(self) -> None:
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(FORCED_SECONDS, self._on_time)

    def _on_time(self) -> None:
        """Give one turn whatever the shares are, so that nobody waits for ever."""
        self._timer = None
        self._decay()
        if self._waiting:
            token_id, account = next(iter(self._waiting.items()))
            if account.in_work:
                self._waiting.move_to_end(token_id)
            else:
                self._admit(token_id, account)
        if self._waiting:
            self._start_timer()

    def _add(self, account: _Account, seconds: float) -> None:
        account.used += seconds
        self._total += seconds

    def _decay(self) -> None:
        """Halve what was used where the time has come."""
        now = time.monotonic()
        halvings = int((now - self._decayed_at) / HALF_LIFE_SECONDS)
        if not halvings:
            return
        self._decayed_at += halvings * HALF_LIFE_SECONDS
        factor = 0.5**halvings
        for token_id, account in [*self._accounts.items()]:
            account.used *= factor
            if not (account.in_work or account.waiting) and account.used < _NEGLIGIBLE_SECONDS:
                del self._accounts[token_id]
        self._total = sum(account.used for account in self._accounts.values())


def _price(seconds: float) -> float:
    """Return what a step is charged: more than its time if everybody else had to wait for long."""
    return seconds if seconds < _LONG_STEP_SECONDS else _LONG_STEP_FACTOR * seconds


@coroutine
def _metered(
    work: Coroutine[Any, Any, T], turns: Turns, account: _Account
) -> Generator[Any, Any, T]:
    """Run a coroutine as `await` does, and charge an account for the time of its steps."""
    error: BaseException | None = None
    while True:
        began = time.perf_counter()
        try:
            awaited = work.throw(error) if error else work.send(None)
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            turns._add(account, _price(time.perf_counter() - began))
        error = None
        try:
            yield awaited
        except BaseException as raised:  # the coroutine is to have it
            error = raised
