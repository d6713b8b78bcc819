"""What waits for the writer: commands of a caller, or a chore, and who gets what it comes to."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlmodel import Session

from app.activity import policy
from app.activity.commands import Command
from app.activity.idempotency import Step
from app.auth import Viewer
from app.errors import Busy
from app.spans import Origin


@dataclass(slots=True, eq=False)
class Waiting:
    """What a caller waits for. It waits in the queue until a unit of work takes it."""

    answer: asyncio.Future[Any]
    is_taken: bool = field(default=False, init=False)

    def settle(self, result: Any) -> None:
        if self.answer.done():  # the caller has gone
            return
        if isinstance(result, Exception):
            self.answer.set_exception(result)
        else:
            self.answer.set_result(result)

    def expire(self) -> None:
        """Give up waiting for a turn."""
        if not self.is_taken:
            self.settle(Busy("The writes before this one take too long; send the request again."))


@dataclass(slots=True, eq=False)
class Job(Waiting):
    """The commands of one caller, who gets a verdict on each. They are never apart.

    `steps` has one for each command, or none at all.
    """

    viewer: Viewer
    commands: Sequence[Command]
    steps: Sequence[Step]
    origin: Origin = None

    @property
    def ticket_ids(self) -> set[UUID]:
        return set[UUID]().union(*(command.ticket_ids for command in self.commands))

    @property
    def may_redact(self) -> bool:
        return policy.may_redact(self.viewer, self.commands)


@dataclass(slots=True, eq=False)
class Chore(Waiting):
    """Work in a unit of work that is no command.

    `hold` keeps other processes from such work. It runs first of all in the unit of work, which
    then holds nothing that they wait for.
    """

    work: Callable[[Session], Any]
    hold: Callable[[Session], None] | None = None


def settle_all(waiting: Iterable[Waiting], verdict: Exception) -> None:
    for one in waiting:
        one.settle(verdict)
