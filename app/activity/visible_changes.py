"""The feed of a ticket: its changes in the order of `seq`, as each viewer sees them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from app.activity.policy import can_see, sees_entry
from app.activity.state import Activity, ChangeType
from app.auth import Viewer


@dataclass(frozen=True, slots=True)
class FeedEntry:
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
    entry: FeedEntry
    activity: Activity | None


@dataclass(frozen=True, slots=True)
class Begun:
    """What a subscription yields first: the changes after `seq` follow."""

    seq: int


def as_seen(viewer: Viewer, entries: Sequence[FeedEntry]) -> Iterator[SeenChange]:
    """Translate changes that follow each other.

    What an entry held is not shown to those who do not see the entry now: of an entry that was
    deleted or made private meanwhile they learn that it is gone, and nothing else.
    """
    now = {entry.activity.id: entry.is_private_now for entry in entries}
    for entry in entries:
        before = _sees(viewer, entry, entry.was_private)
        after = can_see(viewer, entry.activity)
        if before and not after:
            yield SeenChange(entry.seq, ChangeType.REMOVED, entry, None)
        elif after and _sees(viewer, entry, now[entry.activity.id]):
            change_type = ChangeType.UPDATED if before else ChangeType.ADDED
            yield SeenChange(entry.seq, change_type, entry, entry.activity)


def _sees(viewer: Viewer, entry: FeedEntry, is_private: bool | None) -> bool:
    return is_private is not None and sees_entry(viewer, entry.activity.actor_id, is_private)
