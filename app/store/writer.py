"""The single writer: takes every command that waits, runs them as one unit of work, answers.

No timer and no knob: idle means at once, busy means larger batches that share one COMMIT. Nobody
is answered before it.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError

from app.activity.commands import Command
from app.activity.decide import Outcome, decide
from app.activity.input_limits import InputLimits
from app.activity.state import Change, State
from app.auth import Viewer
from app.errors import Busy
from app.store.batch import load_state, store_changes
from app.store.database import CommitFailed, Database, is_busy
from app.store.tokens import record_token_uses

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    viewer: Viewer
    command: Command
    answer: asyncio.Future[Outcome]

    def settle(self, verdict: Outcome | Exception) -> None:
        if self.answer.done():  # the caller has gone
            return
        if isinstance(verdict, Exception):
            self.answer.set_exception(verdict)
        else:
            self.answer.set_result(verdict)


@dataclass(slots=True, eq=False)
class Writer:
    """Commands go in, outcomes come out once they are on disk. `run` must be running."""

    database: Database
    limits: InputLimits
    clock: Callable[[], datetime]
    queue_size: int
    batch_size: int
    published: Callable[[Collection[UUID]], None]
    _queue: deque[_Job] = field(default_factory=deque)
    _token_uses: dict[str, datetime] = field(default_factory=dict)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _is_closing: bool = False

    async def submit(self, viewer: Viewer, command: Command) -> Outcome:
        """Return what the command led to, after its COMMIT. Raises UserError or Busy.

        A caller that is cancelled while its command waits takes it back; once the unit of work
        has begun, the command is carried out.
        """
        if self._is_closing:
            raise Busy("The service is shutting down; send the request again.")
        if len(self._queue) >= self.queue_size:
            raise Busy(f"{self.queue_size} writes are waiting already; send the request again.")
        job = _Job(viewer, command, asyncio.get_running_loop().create_future())
        self._queue.append(job)
        self._wake.set()
        return await job.answer

    def record_token_use(self, token_id: str, used_at: datetime) -> None:
        """Note the use of a token; it is stored with the next unit of work."""
        self._token_uses[token_id] = used_at
        self._wake.set()

    def close(self) -> None:
        """Refuse new commands. `run` returns when those that wait have been answered."""
        self._is_closing = True
        self._wake.set()

    async def run(self) -> None:
        """Write batch after batch until closed and idle."""
        try:
            while await self._has_work():
                await self._write(self._take())
        finally:
            self._is_closing = True
            while self._queue:
                _settle(self._take(), Busy("The service stopped; send the request again."))

    async def _has_work(self) -> bool:
        while not (self._queue or self._token_uses or self._is_closing):
            self._wake.clear()
            await self._wake.wait()
        return bool(self._queue or self._token_uses)

    def _take(self) -> list[_Job]:
        """Take a batch off the queue, leaving out commands whose callers have gone."""
        count = min(len(self._queue), self.batch_size)
        jobs = [self._queue.popleft() for _ in range(count)]
        return [job for job in jobs if not job.answer.done()]

    async def _write(self, jobs: Sequence[_Job]) -> None:
        """Run one unit of work and answer. One that a single job may have spoilt is run singly."""
        try:
            verdicts = await self._commit(jobs)
        except Exception as error:
            if len(jobs) > 1 and _may_be_fault_of_one(error):
                for job in jobs:
                    await self._write([job])
            elif jobs:
                _settle(jobs, _translated(error))
            else:
                _log.warning("The last use of tokens was not stored.", exc_info=error)
        except BaseException:
            _settle(jobs, Busy("The service stopped during the write; look before repeating."))
            raise
        else:
            for job, verdict in zip(jobs, verdicts, strict=True):
                job.settle(verdict)
            self.published({change.ticket.id for change in _changes(verdicts)})

    async def _commit(self, jobs: Sequence[_Job]) -> list[Outcome | Exception]:
        token_uses, self._token_uses = self._token_uses, {}
        async with self.database.unit_of_work() as session:
            state = await load_state(session, [job.command for job in jobs])
            verdicts = [self._decide(state, job) for job in jobs]
            await store_changes(session, _changes(verdicts))
            await record_token_uses(session, token_uses)
        return verdicts

    def _decide(self, state: State, job: _Job) -> Outcome | Exception:
        """Decide one job on what those before it left; whatever it raises is for its caller."""
        try:
            outcome = decide(state, job.command, job.viewer, self.clock(), self.limits)
        except Exception as error:
            return error
        if outcome.change:
            state.apply(outcome.change)
        return outcome


def _settle(jobs: Sequence[_Job], verdict: Exception) -> None:
    for job in jobs:
        job.settle(verdict)


def _changes(verdicts: Sequence[Outcome | Exception]) -> list[Change]:
    return [
        verdict.change for verdict in verdicts if isinstance(verdict, Outcome) and verdict.change
    ]


def _may_be_fault_of_one(error: Exception) -> bool:
    """Tell a value that the engine refuses from an engine that cannot write at all."""
    if isinstance(error, CommitFailed):
        return False
    return not isinstance(error, DBAPIError) or isinstance(error, IntegrityError | DataError)


def _translated(error: Exception) -> Exception:
    if isinstance(error, DBAPIError) and is_busy(error):
        return Busy("Another process holds the database; send the request again.")
    return error
