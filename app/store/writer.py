"""The single writer: runs all waiting commands as one unit of work with one COMMIT.

There is no timer: an idle writer begins at once, and a busy one gets larger batches. No caller gets
an outcome before the COMMIT.
"""

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from itertools import chain
from typing import Any, Final, TypeVar

from sqlmodel import Session

from app.activity.commands import Command
from app.activity.idempotency import Answer, KeyedRequest, Step
from app.activity.input_limits import InputLimits
from app.activity.outcomes import Outcome
from app.activity.state import Change
from app.auth import Viewer
from app.errors import Busy, IdempotencyKeyReused, WriteInDoubt
from app.expiry import Expiry
from app.log import events
from app.measures import SECONDS, SIZES, Histogram
from app.spans import Spans, span_of_batch
from app.store.batch import wait_shortly
from app.store.change_log import log_changes
from app.store.engine import Database
from app.store.faults import Fault, as_told_of_write, fault_of, may_be_fault_of_one
from app.store.held_tickets import HeldTickets
from app.store.idempotency import hold_keys
from app.store.jobs import Chore, Job, Waiting, settle_all
from app.store.tokens import record_token_uses
from app.store.unit_of_work import UnitOfWork, Verdict, changes_of, has_redaction

_log = logging.getLogger(__name__)

ERASE_SECONDS: Final = 0.2
"""Time between two tries to remove redacted texts from the files, while readers prevent it."""

IDLE_SECONDS: Final = 5
"""Time without a write after which the write-ahead log is truncated."""

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Writer:
    """Carries out commands in batches. A task must run `run`."""

    database: Database
    limits: InputLimits
    clock: Callable[[], datetime]
    queue_size: int
    wait_seconds: float
    batch_size: int
    max_answer_bytes: int
    published: Callable[[Sequence[Change]], None]
    idle_seconds: float = IDLE_SECONDS
    spans: Spans | None = None
    batch_sizes: Histogram = field(default_factory=lambda: Histogram(SIZES))
    commit_seconds: Histogram = field(default_factory=lambda: Histogram(SECONDS))
    change_counts: Counter[str] = field(default_factory=Counter)
    _worked_at: float = 0
    _queue: deque[Job] = field(default_factory=deque)
    _queued_count: int = 0  # commands in the queue
    _chores: deque[Chore] = field(default_factory=deque)
    _token_uses: dict[str, datetime] = field(default_factory=dict)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _is_closing: bool = False
    _is_log_long: bool = False
    _must_erase: bool = True  # an erasure of an earlier process may be incomplete
    _held: HeldTickets = field(init=False)
    _expiry: Expiry = field(init=False)
    _unit: UnitOfWork = field(init=False)

    def __post_init__(self) -> None:
        self._held = HeldTickets(self.database)
        self._expiry = Expiry(self.wait_seconds)
        self._unit = UnitOfWork(
            self.limits, self.clock, self.max_answer_bytes, self.database.mark_erasure
        )

    @property
    def waiting(self) -> int:
        """How many commands wait."""
        return self._queued_count

    @property
    def refusal(self) -> str | None:
        """Why a command would be answered BUSY now; None when it would be taken."""
        if self._is_closing:
            return "The service is shutting down; send the request again."
        if max(self._queued_count, len(self._chores)) >= self.queue_size:
            return f"{self.queue_size} writes are waiting already; send the request again."
        return None

    async def submit(self, viewer: Viewer, command: Command, step: Step | None = None) -> Outcome:
        """Return the outcome of a command, after its COMMIT.

        A command that is the step of a request with an idempotency key is carried out once.

        Raises UserError, Busy, StorageFull, StorageUnwritable, WriteInDoubt and
        IdempotencyKeyReused. A caller that is cancelled while its command waits takes it back, and
        so does one that waits for too long; once the unit of work has begun, it is carried out.
        """
        [verdict] = await self.submit_all(viewer, (command,), (step,) if step else ())
        if isinstance(verdict, Exception):
            raise verdict
        return verdict

    async def submit_all(
        self, viewer: Viewer, commands: Sequence[Command], steps: Sequence[Step] = ()
    ) -> Sequence[Verdict]:
        """Return a verdict on each command, in order, after the one COMMIT that they share.

        `steps` has one for each command, or none. An error of one command does not affect the
        others. Raises as `submit` what is an error of all of them.
        """
        if refusal := self.refusal:
            raise Busy(refusal)
        answer = asyncio.get_running_loop().create_future()
        origin = self.spans.origin() if self.spans else None
        job = Job(answer, viewer, commands, steps, origin)
        self._queue.append(job)
        self._queued_count += len(commands)
        verdicts: Sequence[Verdict] = await self._answer(job)
        return verdicts

    async def run_chore(
        self, work: Callable[[Session], T], hold: Callable[[Session], None] | None = None
    ) -> T:
        """Return what a short function returns, after its COMMIT, which it shares with commands.

        `hold`: see `Chore`. Raises Busy, StorageFull, StorageUnwritable and WriteInDoubt.
        """
        if refusal := self.refusal:
            raise Busy(refusal)
        chore = Chore(asyncio.get_running_loop().create_future(), work, hold)
        self._chores.append(chore)
        result: T = await self._answer(chore)
        return result

    async def _answer(self, waiting: Waiting) -> Any:
        """Wake the writer, and return what the caller waits for."""
        self._wake.set()
        self._expiry.start(waiting)
        try:
            return await waiting.answer
        finally:
            self._expiry.stop(waiting)

    def add_chore(
        self, work: Callable[[Session], object], name: str, hold: Callable[[Session], None]
    ) -> None:
        """Run a short function with the next unit of work, if there is one. Nobody waits for it."""
        if self.refusal:
            return
        answer = asyncio.get_running_loop().create_future()
        answer.add_done_callback(partial(_log_failure, name))
        self._chores.append(Chore(answer, work, hold))
        self._wake.set()

    async def run_step(
        self,
        step: Step,
        work: Callable[[Session], T],
        again: Callable[[Session], T],
        hold: Callable[[Session], None],
    ) -> T:
        """As `run_chore`, for a step of a request with an idempotency key.

        Where it was carried out before, `again` runs instead. Raises IdempotencyKeyReused too.
        """

        def once(session: Session) -> T | IdempotencyKeyReused:
            keys = self._unit.claim(session, [step.request])
            try:
                is_new = keys.begin(step)
            except IdempotencyKeyReused as error:
                return error  # raised here, it would fail the work of others
            keys.store()
            return work(session) if is_new else again(session)

        result = await self.run_chore(once, hold)
        if isinstance(result, IdempotencyKeyReused):
            raise result
        return result

    async def keep_answer(self, request: KeyedRequest, answer: Answer) -> Answer:
        """Keep the answer to a request, unless there is one; return the one that is kept."""

        def keep(session: Session) -> Answer:
            keys = self._unit.claim(session, [request])
            kept = keys.keep_answer(request, answer)
            keys.store()
            return kept

        return await self.run_chore(keep)

    def record_token_use(self, token_id: str, used_at: datetime) -> None:
        """Note the use of a token; it is stored with the next unit of work."""
        self._token_uses[token_id] = used_at
        self._wake.set()

    def close(self) -> None:
        """Refuse new commands. `run` returns when those that wait have been answered."""
        self._is_closing = True
        self._wake.set()

    async def run(self) -> None:
        """Write batches until the writer is closed and the queue is empty."""
        try:
            while await self._has_work():
                await self._write(self._take(), self._take_chores())
                if self._must_erase:
                    await self._erase()
        finally:
            self._is_closing = True
            while self._queue or self._chores:
                stopped = Busy("The service stopped; send the request again.")
                settle_all([*self._take(), *self._take_chores()], stopped)

    async def _has_work(self) -> bool:
        while not (self._queue or self._chores or self._token_uses or self._is_closing):
            self._wake.clear()
            await self._wait()
        return bool(self._queue or self._chores or self._token_uses)

    async def _wait(self) -> None:
        """Wait for work. Tidy the files when there is none for a while."""
        while self._is_log_long or self._must_erase:
            seconds = ERASE_SECONDS if self._must_erase else self.idle_seconds
            try:
                async with asyncio.timeout(seconds):
                    await self._wake.wait()
            except TimeoutError:
                await (self._erase() if self._must_erase else self._truncate_log())
            else:
                return
        await self._wake.wait()

    async def _erase(self) -> None:
        """Remove from the files what redactions left in them. Try again while others read."""
        try:
            self._must_erase = not await self.database.erase()
        except Exception as error:
            self._must_erase = False  # until the next redaction or start
            _log.error("The files may still hold what was redacted.", exc_info=error)

    async def _truncate_log(self) -> None:
        try:
            self._is_log_long = not await self.database.truncate_log()
        except Exception as error:
            self._is_log_long = False  # until something is written again
            _log.warning("The write-ahead log was not truncated.", exc_info=error)

    def _take(self) -> list[Job]:
        """Take a batch off the queue, without commands whose callers have gone."""
        jobs: list[Job] = []
        count = 0
        while self._queue and count < self.batch_size:
            job = self._queue.popleft()
            self._queued_count -= len(job.commands)
            if not job.answer.done():
                job.is_taken = True
                jobs.append(job)
                count += len(job.commands)
        return jobs

    def _take_chores(self) -> list[Chore]:
        chores, self._chores = self._chores, deque()
        for chore in chores:
            chore.is_taken = True
        return [chore for chore in chores if not chore.answer.done()]

    async def _write(self, jobs: Sequence[Job], chores: Sequence[Chore]) -> None:
        """Run one unit of work, and settle its jobs whatever happens.

        Those on tickets that another transaction holds get one of their own.
        """
        free, held = self._held.split(jobs)
        try:
            if free or chores or not held:
                await self._write_batch(free, chores)
            if held:
                await self._write_batch(held, [], is_short=True)
        except BaseException:
            stopped = "The service stopped during the write; read before you send it again."
            settle_all([*jobs, *chores], WriteInDoubt(stopped))
            raise

    async def _write_batch(
        self, jobs: Sequence[Job], chores: Sequence[Chore], *, is_short: bool = False
    ) -> None:
        """Run one unit of work. If a single job may have made it fail, run the jobs one by one.

        If it waited in vain for tickets, run what names others. `is_short`: wait for a moment only.
        """
        self._is_log_long = True
        uses, self._token_uses = self._token_uses, {}
        count = len(jobs) + len(chores)
        try:
            work = partial(self._work, jobs, chores, uses, is_short)
            origins = (job.origin for job in jobs)
            with span_of_batch(self.spans, "write batch", origins) as within:
                verdicts, results = await self.database.write(within(work))
        except Exception as error:
            if count:
                self._token_uses = uses | self._token_uses
            await self._recover(error, jobs, chores, is_short=is_short)
        else:
            for job, found in zip(jobs, verdicts, strict=True):
                job.settle(found)
            for chore, result in zip(chores, results, strict=True):
                chore.settle(result)
            self._held.forget(jobs)
            changes = changes_of(chain.from_iterable(verdicts))
            self._must_erase |= has_redaction(changes)
            self._count(jobs, changes)
            self.published(changes)
            if events.has_writes:
                log_changes(changes)

    async def _recover(
        self, error: Exception, jobs: Sequence[Job], chores: Sequence[Chore], *, is_short: bool
    ) -> None:
        """Run again what may succeed after an error, and settle the rest."""
        count = len(jobs) + len(chores)
        if not count:
            _log.warning("The last use of tokens was not stored.", exc_info=error)
        elif fault_of(error) is Fault.HELD:
            await self._write_free(error, jobs, chores, is_short=is_short)
        elif count > 1 and may_be_fault_of_one(error):
            for job in jobs:
                await self._write_batch([job], [])
            for chore in chores:
                await self._write_batch([], [chore])
        else:
            settle_all([*jobs, *chores], as_told_of_write(error))

    async def _write_free(
        self, error: Exception, jobs: Sequence[Job], chores: Sequence[Chore], *, is_short: bool
    ) -> None:
        """Run what names no ticket that another transaction holds; the rest is busy.

        Where it is no ticket that was waited for, the chores are busy, or all if there are none.
        """
        await self._held.look(jobs)
        free, held = self._held.split(jobs)
        busy: Sequence[Waiting] = held or chores or free
        settle_all(busy, as_told_of_write(error))
        chores_left = chores if busy is held else []
        if busy is not free and (free or chores_left):
            await self._write_batch(free, chores_left, is_short=is_short)

    def _count(self, jobs: Sequence[Job], changes: Sequence[Change]) -> None:
        self.commit_seconds.observe(time.monotonic() - self._worked_at)
        self.batch_sizes.observe(sum(len(job.commands) for job in jobs))
        for change in changes:
            self.change_counts[change.change_type.value] += 1

    def _work(
        self,
        jobs: Sequence[Job],
        chores: Sequence[Chore],
        uses: dict[str, datetime],
        is_short: bool,
        session: Session,
    ) -> tuple[list[list[Verdict]], list[Any]]:
        """Do everything within the transaction."""
        if is_short:
            wait_shortly(session)
        for hold in {chore.hold for chore in chores if chore.hold}:
            hold(session)
        if any(job.may_redact for job in jobs):
            hold_keys(session)
        # Chores come first: they claim keys, and in all processes these are locked before tickets.
        results = [chore.work(session) for chore in chores]
        verdicts = self._unit.carry_out(jobs, session) if jobs else []
        record_token_uses(session, uses)
        self._worked_at = time.monotonic()
        return verdicts, results


def _log_failure(name: str, answer: asyncio.Future[Any]) -> None:
    if not answer.cancelled() and (error := answer.exception()):
        _log.warning("This was not stored: %s", name, exc_info=error)
