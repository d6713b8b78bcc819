"""What a unit of work does with commands, within its transaction: load, decide, store."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import chain

from sqlmodel import Session

from app.activity.commands import Command
from app.activity.decide import decide
from app.activity.idempotency import KeyedRequest
from app.activity.input_limits import InputLimits
from app.activity.outcomes import Outcome
from app.activity.state import Change, State
from app.auth import Viewer
from app.store.batch import load_state, store_changes
from app.store.idempotency import Keys, forget_answers
from app.store.jobs import Job

Verdict = Outcome | Exception


@dataclass(frozen=True, slots=True)
class UnitOfWork:
    """Carries out the commands of a batch. `mark_erasure` notes that files hold what is erased."""

    limits: InputLimits
    clock: Callable[[], datetime]
    max_answer_bytes: int
    mark_erasure: Callable[[Session], None]

    def carry_out(self, jobs: Sequence[Job], session: Session) -> list[list[Verdict]]:
        """Load, decide and store."""
        requests = [job.steps[0].request for job in jobs if job.steps]
        keys = self.claim(session, requests) if requests else None
        state = load_state(session, [command for job in jobs for command in job.commands])
        verdicts = [
            self._decide_steps(state, job, keys)
            if keys and job.steps
            else [self._decide(state, job.viewer, command) for command in job.commands]
            for job in jobs
        ]
        changes = changes_of(chain.from_iterable(verdicts))
        store_changes(session, changes)
        if keys:
            keys.store()
        if has_redaction(changes):
            # After the answers of this unit of work were kept: they may show what it redacts.
            forget_answers(session)
            self.mark_erasure(session)
        return verdicts

    def claim(self, session: Session, requests: Sequence[KeyedRequest]) -> Keys:
        return Keys.claim(session, requests, self.clock(), self.max_answer_bytes)

    def _decide_steps(self, state: State, job: Job, keys: Keys) -> list[Verdict]:
        return [
            keys.settle(step, job.viewer, partial(self._decide, state, job.viewer, command))
            for step, command in zip(job.steps, job.commands, strict=True)
        ]

    def _decide(self, state: State, viewer: Viewer, command: Command) -> Verdict:
        """Decide a command on the state after those before it. An error is that of it alone."""
        try:
            outcome = decide(state, command, viewer, self.clock(), self.limits)
            for change in outcome.changes:
                state.apply(change)
        except Exception as error:
            return error
        return outcome


def changes_of(verdicts: Iterable[Verdict]) -> list[Change]:
    return [
        change for verdict in verdicts if isinstance(verdict, Outcome) for change in verdict.changes
    ]


def has_redaction(changes: Sequence[Change]) -> bool:
    return any(change.is_redaction for change in changes)
