"""The feed of a ticket: its changes in the order of `seq`, as each viewer sees them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from app.activity.policy import can_see, sees_entry
from app.activity.state import Activity, ChangeType
from app.auth import Viewer


@dataclass(frozen=True, slots=True)
class RecordedChange:
    """A change as the history has it. `activity` is the entry as the change left it.

    `was_private` is None where there was nothing before; `is_private_now` is None where there is
    nothing any more. `characters` are those of its texts.
    """

    seq: int
    change_type: ChangeType
    activity: Activity
    was_private: bool | None
    is_private_now: bool | None
    characters: int


@dataclass(frozen=True, slots=True)
class SeenChange:
    """A change as one viewer sees it; `activity` is None where it took the entry from sight."""

    seq: int
    change_type: ChangeType
    recorded: RecordedChange
    activity: Activity | None


@dataclass(frozen=True, slots=True)
class Begun:
    """What a subscription yields first: the changes after `seq` follow."""

    seq: int


def as_seen(viewer: Viewer, changes: Sequence[RecordedChange]) -> Iterator[SeenChange]:
    """Translate changes that follow each other.

    What an entry held is not shown to those who do not see the entry now: of an entry that was
    deleted or made private meanwhile they learn that it is gone, and nothing else.
    """
    now = {change.activity.id: change.is_private_now for change in changes}
    for change in changes:
        before = _sees(viewer, change, change.was_private)
        after = can_see(viewer, change.activity)
        if before and not after:
            yield SeenChange(change.seq, ChangeType.REMOVED, change, None)
        elif after and _sees(viewer, change, now[change.activity.id]):
            change_type = ChangeType.UPDATED if before else ChangeType.ADDED
            yield SeenChange(change.seq, change_type, change, change.activity)


def _sees(viewer: Viewer, change: RecordedChange, is_private: bool | None) -> bool:
    return is_private is not None and sees_entry(viewer, change.activity.actor_id, is_private)
