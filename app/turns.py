"""Shares the processor between tokens: when several compete, the one that has used more waits.

Requests of all tokens run on one event loop, so a token with many clients, or with expensive
requests, would take nearly all of its time from the others. Here each token is charged for the
processor time of its requests. While several tokens are present, a token that has used more than
its share of late may have only so many requests in work as take QUANTUM_SECONDS together: the
others wait no longer than that for it, and it gets the time that they leave. If one request takes
more, it gets a turn every FORCED_SECONDS, and more as soon as its share allows it. A token is
present while it has requests in work and for PRESENCE_SECONDS after each of them, since its client
needs that long to send the next one. A token that is alone never waits.
"""

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Coroutine, Generator
from dataclasses import dataclass, field
from types import coroutine
from typing import Any, Final, TypeVar

from app.errors import Busy

T = TypeVar("T")

FORCED_SECONDS: Final = 0.05
"""Time between two turns that tokens get although they are over their share. It is longer after a
turn that was charged for more."""

SLOW_SECONDS: Final = 0.5
"""After this time a request in work, which may only wait for the database, no longer keeps its
token from the next turn beyond its share."""

QUANTUM_SECONDS: Final = 0.002
"""Processor time that the requests of a token over its share may take together."""

MOST_SHORT: Final = 16
"""Short requests of a token over its share that may be in work: the next ones may be longer."""

PRESENCE_SECONDS: Final = 0.005
"""How long a token counts as present after a request of it has ended."""

TOLERANCE_SECONDS: Final = 0.02
"""Processor time beyond its share that a token may use without waiting."""

HALF_LIFE_SECONDS: Final = 1.0
"""After this time used processor time counts half."""

MAX_WAITING: Final = 1000
"""Requests of one token that may wait for a turn; each can hold a body in memory."""

_MAX_ACCOUNTS: Final = 10_000
_NEGLIGIBLE_SECONDS: Final = 1e-4
_COST_WEIGHT: Final = 1 / 8
_LONG_STEP_SECONDS: Final = 0.004
_LONG_STEP_FACTOR: Final = 4
_TICK_SECONDS: Final = 0.001
"""Time between two looks at who may begin, while requests wait."""


@dataclass(slots=True, eq=False)
class _Account:
    """What one token has used (in seconds, after the decay), and its queue."""

    used: float = 0
    cost: float = 2 * QUANTUM_SECONDS
    """What a request of the token is charged on average, the last ones counting most."""
    used_at_end: float = 0
    """What had been used when a request ended last."""
    in_work: int = 0
    begun_at: float = 0
    """When the last of its requests began."""
    lingering: int = 0
    """Requests that ended less than PRESENCE_SECONDS ago."""
    waiting: "dict[asyncio.Future[None], None]" = field(default_factory=dict)
    """In the order in which they came. Those that give up leave it."""

    @property
    def is_present(self) -> bool:
        return self.in_work + self.lingering > 0

    def learn_cost(self) -> None:
        self.cost += (self.used - self.used_at_end - self.cost) * _COST_WEIGHT
        self.used_at_end = self.used

    def next_waiter(self) -> "asyncio.Future[None] | None":
        """Take the first request that still waits from the queue."""
        while self.waiting:
            waiter = next(iter(self.waiting))
            del self.waiting[waiter]
            if not waiter.done():  # it has been cancelled, and its task has not run since
                return waiter
        return None


@dataclass(slots=True, eq=False)
class Turns:
    """Gives requests their turns. It lives on one event loop. `clock` is monotonic."""

    max_wait_seconds: float
    clock: Callable[[], float] = time.monotonic
    _accounts: OrderedDict[str, _Account] = field(default_factory=OrderedDict)
    _present: int = 0
    """Tokens that are present."""
    _total: float = 0
    """What all tokens have used."""
    _decayed_at: float = field(init=False)
    _lingering: deque[tuple[float, _Account]] = field(default_factory=deque)
    """When each request that ended of late is no longer a reason to count its token as present."""
    _waiting: OrderedDict[str, _Account] = field(default_factory=OrderedDict)
    _timer: asyncio.TimerHandle | None = None
    _forced_at: float = field(init=False)
    _forced: _Account | None = None
    _forced_used: float = 0
    """What the account of the last forced turn had used before it."""

    _slice_from: float | None = None
    """What all had used when one over its share first asked in this turn of the event loop."""

    def __post_init__(self) -> None:
        self._decayed_at = self._forced_at = self.clock()

    async def run(self, token_id: str, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in a turn of the token, and charge the token for its processor time.

        Raises Busy where too many requests of the token wait, or this one waited for too long.
        """
        self._decay()  # before the account is made: it drops those that are not in use
        account = self._account(token_id)
        if not account.waiting and self._may_begin(account):
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
        """Charge a token for processor time that was spent for it elsewhere."""
        self._add(self._account(token_id), seconds)

    def _account(self, token_id: str) -> _Account:
        account = self._accounts.get(token_id)
        if account is None:
            account = self._accounts[token_id] = _Account()
            self._drop_oldest()
        return account

    def _drop_oldest(self) -> None:
        """Drop accounts beyond the most that are kept, but for those in use."""
        tries = 2 * (len(self._accounts) - _MAX_ACCOUNTS)
        while tries > 0 and len(self._accounts) > _MAX_ACCOUNTS:
            tries -= 1
            token_id, oldest = self._accounts.popitem(last=False)
            if oldest.is_present or oldest.waiting:
                self._accounts[token_id] = oldest
            else:
                self._total -= oldest.used

    def _may_begin(self, account: _Account) -> bool:
        """Whether the token is alone, has used no more than its share, or its request is short."""
        others = self._present - account.is_present
        if not others or account.used <= self._total / (others + 1) + TOLERANCE_SECONDS:
            return True
        cost = max(account.cost, QUANTUM_SECONDS / MOST_SHORT)
        if (account.in_work + 1) * cost <= QUANTUM_SECONDS and self._has_slice():
            return True
        self._forget_lingering()
        return self._present == account.is_present

    def _has_slice(self) -> bool:
        """Whether no more than QUANTUM_SECONDS were used in this turn of the event loop.

        Requests that wait for nothing are never in work together: a thousand of them could begin
        and end before anybody else has the event loop.
        """
        if self._slice_from is None:
            self._slice_from = self._total
            asyncio.get_running_loop().call_soon(self._end_slice)
        return self._total - self._slice_from <= QUANTUM_SECONDS

    def _end_slice(self) -> None:
        self._slice_from = None

    def _begin(self, account: _Account) -> None:
        self._present += not account.is_present
        account.in_work += 1
        account.begun_at = self.clock()

    def _end(self, account: _Account) -> None:
        account.in_work -= 1
        account.learn_cost()
        account.lingering += 1
        self._lingering.append((self.clock() + PRESENCE_SECONDS, account))
        self._forget_lingering()
        if self._waiting:
            self._admit_next()

    def _forget_lingering(self) -> None:
        """Count tokens as present no longer whose last request ended long enough ago."""
        now = self.clock()
        while self._lingering and self._lingering[0][0] <= now:
            _, account = self._lingering.popleft()
            account.lingering -= 1
            self._present -= not account.is_present

    async def _wait(self, token_id: str, account: _Account) -> None:
        if len(account.waiting) >= MAX_WAITING:
            raise Busy(f"{MAX_WAITING} requests of the token are waiting; send it again.")
        waiter = asyncio.get_running_loop().create_future()
        account.waiting[waiter] = None
        self._waiting[token_id] = account
        self._start_timer()
        try:
            async with asyncio.timeout(self.max_wait_seconds):
                await waiter
        except BaseException as error:
            if waiter.done() and not waiter.cancelled():
                self._end(account)  # its turn had come already
            else:
                self._leave(token_id, account, waiter)
            if isinstance(error, TimeoutError):
                raise Busy("Other tokens need the service too; send the request again.") from None
            raise

    def _leave(self, token_id: str, account: _Account, waiter: "asyncio.Future[None]") -> None:
        account.waiting.pop(waiter, None)
        if not account.waiting:
            self._waiting.pop(token_id, None)

    def _admit_next(self) -> None:
        """Let requests of the token that has waited longest begin, as far as it may have them.

        They take no longer than QUANTUM_SECONDS, or it is one. Even those of a token that is alone
        do not all begin at once: it is perhaps alone only until another client has its answer.
        """
        token_id, account = next(iter(self._waiting.items()))
        left = QUANTUM_SECONDS
        while account.waiting and left > 0 and self._may_begin(account):
            if self._admit(token_id, account):
                left -= account.cost
        if token_id in self._waiting:
            self._waiting.move_to_end(token_id)

    def _admit(self, token_id: str, account: _Account) -> bool:
        """Let the next request of the token begin. Return whether one still waited."""
        if waiter := account.next_waiter():
            self._begin(account)
            waiter.set_result(None)
        if not account.waiting:
            del self._waiting[token_id]
        return waiter is not None

    def _start_timer(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_TICK_SECONDS, self._on_time)

    def _on_time(self) -> None:
        self._timer = None
        self._decay()
        if self._waiting:
            self._admit_next()
        if self._waiting and self._may_force():
            self._force()
        if self._waiting:
            self._start_timer()

    def _may_force(self) -> bool:
        """Whether the last forced turn is long enough ago for what it took."""
        taken = self._forced.used - self._forced_used if self._forced else 0
        return self.clock() >= self._forced_at + max(FORCED_SECONDS, taken)

    def _force(self) -> None:
        """Give one turn whatever the shares are, so that nobody waits for ever."""
        token_id, account = next(iter(self._waiting.items()))
        self._waiting.move_to_end(token_id)
        if account.in_work and self.clock() < account.begun_at + SLOW_SECONDS:
            return
        used = account.used
        if self._admit(token_id, account):
            self._forced_at, self._forced, self._forced_used = self.clock(), account, used

    def _add(self, account: _Account, seconds: float) -> None:
        account.used += seconds
        self._total += seconds

    def _decay(self) -> None:
        """Halve what was used where the time has come."""
        now = self.clock()
        halvings = int((now - self._decayed_at) / HALF_LIFE_SECONDS)
        if not halvings:
            return
        self._decayed_at += halvings * HALF_LIFE_SECONDS
        factor = 0.5**halvings
        self._forced_used *= factor
        self._forget_lingering()
        for token_id, account in [*self._accounts.items()]:
            account.used *= factor
            account.used_at_end *= factor
            is_idle = not (account.is_present or account.waiting)
            if is_idle and account.used < _NEGLIGIBLE_SECONDS:
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
        began = turns.clock()
        try:
            awaited = work.throw(error) if error else work.send(None)
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            turns._add(account, _price(turns.clock() - began))
        error = None
        try:
            yield awaited
        except BaseException as raised:  # the coroutine is to have it
            error = raised
