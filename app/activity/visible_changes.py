"""The feed of a ticket: its changes in the order of `seq`, as each viewer sees them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from app.activity.listing import Filter
from app.activity.policy import can_see, sees_entry
from app.activity.state import Activity, ChangeType
from app.auth import Viewer


@dataclass(frozen=True, slots=True)
class RecordedChange:
    """A change as the history has it. `activity` is the entry as the change left it.

    `before` is the entry before the change, as far as the policy and a filter ask: its privacy and
    its message; None where there was nothing. `is_private_now` is None where there is nothing any
    more. `characters` are those of all these texts.
    """

    seq: int
    change_type: ChangeType
    activity: Activity
    before: Activity | None
    is_private_now: bool | None
    characters: int


@dataclass(frozen=True, slots=True)
class SeenChange:
    """A change of a list as one viewer sees it.

    `activity` is None where the change took the entry from sight, and not where the entry only
    ceased to pass the filter of the list.
    """

    seq: int
    change_type: ChangeType
    recorded: RecordedChange
    activity: Activity | None


@dataclass(frozen=True, slots=True)
class Begun:
    """What a subscription yields first: the changes after `seq` follow."""

    seq: int


def as_seen(
    viewer: Viewer, changes: Sequence[RecordedChange], wanted: Filter
) -> Iterator[SeenChange]:
    """Translate changes that follow each other into those of the list of what is wanted.

    What an entry held is not shown to those who do not see the entry now: of an entry that was
    deleted or made private meanwhile they learn that it is gone, and nothing else. They learn it
    whatever they want, since whether it passed a filter would say what it held.
    """
    now = {change.activity.id: change.is_private_now for change in changes}
    for change in changes:
        before = change.before if _saw(viewer, change.before) else None
        after = change.activity if can_see(viewer, change.activity) else None
        if before and not after:
            yield SeenChange(change.seq, ChangeType.REMOVED, change, None)
        elif after and _sees(viewer, after, now[after.id]):
            was_listed = before is not None and wanted.passes(before)
            if change_type := _change_of_list(was_listed, wanted.passes(after)):
                yield SeenChange(change.seq, change_type, change, after)


def _change_of_list(was_listed: bool, is_listed: bool) -> ChangeType | None:
    if is_listed:
        return ChangeType.UPDATED if was_listed else ChangeType.ADDED
    return ChangeType.REMOVED if was_listed else None


def _saw(viewer: Viewer, before: Activity | None) -> bool:
    return before is not None and _sees(viewer, before, before.is_private)


def _sees(viewer: Viewer, activity: Activity, is_private: bool | None) -> bool:
    return is_private is not None and sees_entry(viewer, activity.actor_id, is_private)
