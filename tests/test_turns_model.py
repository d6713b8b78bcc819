"""Turns against a simple model of them, in a time that passes only where a test lets it."""

import asyncio
import selectors
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import pytest
from hypothesis import settings as examples
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from app import turns as turns_module
from app.errors import Busy
from app.turns import (
    FORCED_SECONDS,
    MOST_SHORT,
    PRESENCE_SECONDS,
    QUANTUM_SECONDS,
    SLOW_SECONDS,
    Turns,
)

TOKENS: Final = ("a", "b", "c")
QUEUE: Final = 3
NEVER: Final = 1e9
TINY: Final = 1e-9

pytestmark = pytest.mark.any_engine


def price(seconds: float) -> float:
    """What a step is charged: one that holds up everybody else for long costs more."""
    return 4 * seconds if seconds >= 0.004 else seconds


class Clock:
    """A monotonic clock, which stands still unless a test moves it."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Selector(selectors.DefaultSelector):
    """Where an event loop would sleep, the clock moves on at once."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        assert ready or timeout is not None, "all wait, and nothing will ever happen"
        if not ready:
            self._clock.now += timeout or 0
        return ready


class Loop(asyncio.SelectorEventLoop):
    """An event loop on a clock of ours."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(Selector(clock))
        self.time = clock  # type: ignore[method-assign]


@dataclass(eq=False)
class Request:
    """A request of a token: it uses processor time and waits, in turn, and then it may fail."""

    token: str
    uses: Sequence[float]
    waits: float
    fails: bool
    asked_at: float
    waiting: bool = False
    begun: bool = False
    cancelled: bool = False
    ended_at: float = float("inf")
    task: "asyncio.Task[str]" = field(init=False)

    @property
    def price(self) -> float:
        return sum(map(price, self.uses))


@dataclass(eq=False)
class Account:
    """What the model knows of a token."""

    used: float = 0
    cost: float = 2 * QUANTUM_SECONDS
    used_at_end: float = 0
    in_work: int = 0
    begun_at: float = 0
    present_until: float = 0
    queue: list[Request] = field(default_factory=list)


class Watched(Turns):
    """Turns that tell the model of each request that begins, waits or ends."""

    model: "TurnsMachine"

    def _begin(self, account: Any) -> None:
        self.model.begin(self._name(account))
        super()._begin(account)

    def _end(self, account: Any) -> None:
        self.model.end(self._name(account))
        super()._end(account)

    async def _wait(self, token_id: str, account: Any) -> None:
        self.model.wait(token_id)
        await super()._wait(token_id, account)

    def _name(self, account: Any) -> str:
        return next(name for name, other in self._accounts.items() if other is account)


class TurnsMachine(RuleBasedStateMachine):
    """Sends requests of three tokens. It knows what each uses, and who may begin when."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.loop = Loop(self.clock)
        self.accounts = {token: Account() for token in TOKENS}
        self.requests: list[Request] = []
        self.by_task: dict[Any, Request] = {}
        self.forced_at, self.forced_used, self.forced = 0.0, 0.0, Account()
        self.ends: Counter[str] = Counter()
        self.cancels_next = False
        self.faults: list[BaseException] = []
        self.loop.set_exception_handler(lambda _, said: self.faults.append(said["exception"]))

    @initialize(max_wait=st.sampled_from([0.3, 1000]), half_life=st.sampled_from([1.0, NEVER]))
    def open(self, max_wait: float, half_life: float) -> None:
        turns_module.HALF_LIFE_SECONDS = half_life  # type: ignore[misc] # the test puts it back
        self.decays = half_life < NEVER
        self.max_wait = max_wait
        self.turns = Watched(max_wait, self.clock)
        self.turns.model = self

    # What happens

    @rule(
        token=st.sampled_from(TOKENS),
        uses=st.lists(st.sampled_from([0.0001, 0.001, 0.03]), min_size=1, max_size=3),
        waits=st.sampled_from([0, 0, 0.01, 0.2]),
        fails=st.booleans(),
        count=st.sampled_from([1, 1, 2, QUEUE + 2]),
    )
    def ask(self, token: str, uses: list[float], waits: float, fails: bool, count: int) -> None:
        for _ in range(count):
            request = Request(token, uses, waits, fails, self.clock())
            request.task = self.loop.create_task(self._request(request))
            self.requests.append(request)
            self.by_task[request.task] = request
        self._settle()

    @rule(token=st.sampled_from(TOKENS), seconds=st.sampled_from([0.001, 0.2, 3]))
    def charge(self, token: str, seconds: float) -> None:
        self.turns.charge(token, seconds)
        self.accounts[token].used += seconds

    @rule(
        uses=st.sampled_from([0.0001, 0.03]),
        waits=st.sampled_from([0, 0.1]),
        count=st.sampled_from([2, QUEUE]),
    )
    def compete(self, uses: float, waits: float, count: int) -> None:
        """Let two tokens that are over their shares wait beside one that is not."""
        self.ask("c", [0.0001], waits=1, fails=False, count=1)
        for token in ("a", "b"):
            self.charge(token, 3)
            self.ask(token, [uses], waits, fails=False, count=count)
        self.let_pass(0.4)

    @rule(picks=st.lists(st.integers(0, 20), min_size=1, max_size=4))
    def cancel(self, picks: list[int]) -> None:
        for pick in picks:
            if running := [one for one in self.requests if not one.task.done()]:
                request = running[pick % len(running)]
                request.cancelled = True
                self._leave(request)
                request.task.cancel()
        self._settle()

    @rule()
    def cancel_the_next_whose_turn_comes(self) -> None:
        self.cancels_next = True

    @rule(seconds=st.sampled_from([0.001, 0.004, 0.06, 0.4, 2.5]))
    def let_pass(self, seconds: float) -> None:
        self.loop.run_until_complete(asyncio.sleep(seconds))
        self._settle()

    async def _request(self, request: Request) -> str:
        try:
            answer = await self.turns.run(request.token, self._work(request))
            self.ends["answered"] += 1
            return answer
        except Busy as error:
            self.ends["busy"] += 1
            assert not request.begun
            if "are waiting" in error.message:
                assert len(self.accounts[request.token].queue) == QUEUE
            else:
                assert self.clock() >= request.asked_at + self.max_wait - TINY
            raise
        finally:
            request.ended_at = self.clock()
            self._leave(request)

    async def _work(self, request: Request) -> str:
        account = self.accounts[request.token]
        if request.waiting:
            assert account.queue[0] is request, "those of a token begin in their order"
        self._leave(request)
        request.begun = True
        for seconds in request.uses:
            self.clock.now += seconds
            account.used += price(seconds)
            await asyncio.sleep(request.waits)
        if request.fails:
            raise ValueError(request.token)
        return request.token

    def _leave(self, request: Request) -> None:
        if request in (queue := self.accounts[request.token].queue):
            queue.remove(request)

    def _settle(self) -> None:
        """Let everything run that can run now, and what is due because that took time."""

        async def until_nothing_is_ready() -> None:
            idle = 0
            while idle < 3:
                await asyncio.sleep(0)
                idle = 0 if self.loop._ready else idle + 1  # type: ignore[attr-defined]

        self.loop.run_until_complete(until_nothing_is_ready())
        for fault in self.faults:
            raise fault

    # What may happen

    def wait(self, token: str) -> None:
        request = self.by_task[asyncio.current_task()]
        account = self.accounts[token]
        assert account.queue or self._others(token), "a token that is alone does not wait"
        if len(account.queue) < QUEUE:
            request.waiting = True
            account.queue.append(request)

    def begin(self, token: str) -> None:
        account = self.accounts[token]
        asking = self.by_task.get(asyncio.current_task())
        is_at_once = asking and not asking.waiting and not asking.begun
        if not self._may_begin(token):
            assert not is_at_once
            self._force(account)
        if self.cancels_next and not is_at_once:
            self.cancels_next = False
            request = account.queue[0]
            request.cancelled = True
            self.loop.call_soon(request.task.cancel)  # before it runs
        account.in_work += 1
        account.begun_at = self.clock()

    def end(self, token: str) -> None:
        account = self.accounts[token]
        account.in_work -= 1
        account.present_until = self.clock() + PRESENCE_SECONDS
        account.cost += (account.used - account.used_at_end - account.cost) / 8
        account.used_at_end = account.used

    def _force(self, account: Account) -> None:
        """Beyond its share a token has a turn now and then, spaced by what the last one cost."""
        now = self.clock()
        taken = 0 if self.decays else self.forced.used - self.forced_used
        assert now >= self.forced_at + max(FORCED_SECONDS, taken) - TINY
        assert not account.in_work or now >= account.begun_at + SLOW_SECONDS - TINY
        self.ends["forced"] += 1
        self.forced_at, self.forced, self.forced_used = now, account, account.used

    def _may_begin(self, token: str) -> bool:
        others = self._others(token)
        used, cost = self._used(token)
        total = sum(self._used(one)[0] for one in TOKENS)
        is_in_share = used <= total / (len(others) + 1) + turns_module.TOLERANCE_SECONDS + TINY
        cost = max(cost, QUANTUM_SECONDS / MOST_SHORT)
        is_short = (self.accounts[token].in_work + 1) * cost <= QUANTUM_SECONDS + TINY
        return not others or is_in_share or is_short

    def _used(self, token: str) -> tuple[float, float]:
        """Return what a token has used, and what its requests cost on average."""
        real = self.turns._accounts.get(token)
        if self.decays and real:  # the model does not know when it was halved last
            return real.used, real.cost
        account = self.accounts[token]
        return (0, account.cost) if self.decays else (account.used, account.cost)

    def _others(self, token: str) -> list[str]:
        return [one for one in TOKENS if one != token and self._is_present(one)]

    def _is_present(self, token: str) -> bool:
        account = self.accounts[token]
        return account.in_work > 0 or self.clock() < account.present_until

    # What holds at any time

    @invariant()
    def tokens_are_present_while_they_work_and_a_moment_longer(self) -> None:
        self.turns._forget_lingering()
        assert self.turns._present == sum(map(self._is_present, TOKENS))
        for token in TOKENS:
            running = [one for one in self._of(token) if one.begun and not one.task.done()]
            assert self.accounts[token].in_work == len(running)

    @invariant()
    def each_token_is_charged_for_what_it_used(self) -> None:
        accounts = self.turns._accounts
        assert self.turns._total == pytest.approx(sum(one.used for one in accounts.values()))
        if not self.decays:
            used = {token: account.used for token, account in accounts.items()}
            assert used == pytest.approx({token: self.accounts[token].used for token in used})

    @invariant()
    def only_those_wait_that_have_not_given_up(self) -> None:
        waiting = {token: len(one.queue) for token, one in self.accounts.items() if one.queue}
        found = self.turns._waiting
        assert {token: len(account.waiting) for token, account in found.items()} == waiting

    @invariant()
    def the_turn_beyond_the_shares_is_not_late(self) -> None:
        """Some token has it when it is due: nobody waits for ever."""
        waiting = [one for one in self.accounts.values() if one.queue]
        now = self.clock()
        if not waiting or any(one.in_work for one in waiting):
            return
        taken = self.forced.used - self.forced_used
        # One that is in work keeps its token from that turn.
        ends = [one.present_until - PRESENCE_SECONDS for one in waiting]
        due = max(self.forced_at, *ends, *(one.queue[0].asked_at for one in waiting))
        meanwhile = sum(sum(one.uses) for one in self.requests if one.ended_at > due)
        assert now <= due + max(FORCED_SECONDS, taken) + meanwhile + 0.01

    def _of(self, token: str) -> list[Request]:
        return [one for one in self.requests if one.token == token]

    def teardown(self) -> None:
        try:
            self._end_all()
        finally:
            self.loop.run_until_complete(asyncio.sleep(0))
            self.loop.close()

    def _end_all(self) -> None:
        left = [one for one in self.requests if not one.task.done()]
        charged = sum(account.used for account in self.accounts.values())
        seconds = sum(one.price + 3 * one.waits + SLOW_SECONDS for one in left) + charged + 1
        self.loop.run_until_complete(asyncio.sleep(seconds))
        assert all(one.task.done() for one in self.requests), "nobody starves"
        for request in self.requests:
            self._check_end(request)
        if self.requests:
            assert (self.turns._waiting, self.turns._timer) == ({}, None)
            self.tokens_are_present_while_they_work_and_a_moment_longer()
            assert not self.turns._present

    def _check_end(self, request: Request) -> None:
        if request.task.cancelled():
            assert request.cancelled
            return
        error = request.task.exception()
        if isinstance(error, Busy):
            return
        assert request.begun
        assert isinstance(error, ValueError) == request.fails
        assert error or request.task.result() == request.token


def test_turns_are_given_as_the_model_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns_module, "MAX_WAITING", QUEUE)
    monkeypatch.setattr(turns_module, "HALF_LIFE_SECONDS", NEVER)
    seen: Counter[str] = Counter()

    class Machine(TurnsMachine):
        def teardown(self) -> None:
            super().teardown()
            seen.update(self.ends)

    bounds = examples(max_examples=100, stateful_step_count=25)
    run_state_machine_as_test(Machine, settings=bounds)
    assert all(seen[end] > 10 for end in ("answered", "busy", "forced"))


def test_a_request_that_gave_up_does_not_use_the_turn_beyond_the_shares() -> None:
    clock = Clock()

    async def take_turns() -> float:
        turns = Turns(1000, clock)
        for token in ("gone", "heavy"):
            turns.charge(token, 30)
        lights = [
            asyncio.create_task(turns.run(token, asyncio.sleep(10))) for token in ("light", "dim")
        ]
        gone = [asyncio.create_task(turns.run("gone", asyncio.sleep(0))) for _ in range(2)]
        await asyncio.sleep(FORCED_SECONDS / 2)
        for task in gone:
            task.cancel()
        await asyncio.sleep(FORCED_SECONDS)
        asked_at = clock()
        await turns.run("heavy", asyncio.sleep(0))
        waited = clock() - asked_at
        await asyncio.gather(*lights)
        return waited

    with asyncio.Runner(loop_factory=lambda: Loop(clock)) as runner:
        waited = runner.run(take_turns())

    assert waited < FORCED_SECONDS / 5


def test_a_thousand_short_requests_leave_the_event_loop_to_others_in_between() -> None:
    clock = Clock()
    short, rest = 6e-5, 5e-4
    late: list[float] = []

    async def use() -> None:
        clock.now += short

    async def look() -> None:
        while True:
            asleep_at = clock()
            await asyncio.sleep(rest)
            late.append(clock() - asleep_at - rest)

    async def take_turns() -> None:
        turns = Turns(1000, clock)
        turns.charge("heavy", 30)
        for _ in range(100):  # alone, it shows that its requests are short
            await turns.run("heavy", use())
        light = asyncio.create_task(turns.run("light", asyncio.sleep(10)))
        looking = asyncio.create_task(look())
        await asyncio.sleep(0)
        began = clock()
        await asyncio.gather(*(turns.run("heavy", use()) for _ in range(turns_module.MAX_WAITING)))
        assert clock() - began < 0.2
        looking.cancel()
        await light

    with asyncio.Runner(loop_factory=lambda: Loop(clock)) as runner:
        runner.run(take_turns())

    assert max(late) < 4 * QUANTUM_SECONDS


def test_short_requests_that_are_in_work_together_are_few_as_the_next_may_be_long() -> None:
    clock = Clock()
    in_work: list[int] = []

    async def take_turns() -> None:
        turns = Turns(1000, clock)
        turns.charge("heavy", 30)
        for _ in range(100):  # alone, it shows that its requests are short
            await turns.run("heavy", asyncio.sleep(0))
        light = asyncio.create_task(turns.run("light", asyncio.sleep(10)))
        await asyncio.sleep(0)

        async def work() -> None:
            in_work.append(turns._accounts["heavy"].in_work)
            await asyncio.sleep(0.001)

        await asyncio.gather(*(turns.run("heavy", work()) for _ in range(3 * MOST_SHORT)))
        await light

    with asyncio.Runner(loop_factory=lambda: Loop(clock)) as runner:
        runner.run(take_turns())

    assert max(in_work) == MOST_SHORT
