"""Turns the recorded changes of a ticket into those that one viewer may see."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from app.activity.cursors import FeedPosition
from app.activity.listing import Filter
from app.activity.policy import can_see, sees_entry
from app.activity.state import Activity, Change, ChangeType
from app.auth import Viewer
from app.json_text import encode_json


@dataclass(frozen=True, slots=True)
class RecordedChange:
    """A change from the history. `activity` is the entry after the change.

    `before` is the entry before the change, None where it was not listed; of its content only what
    the policy and filters need is set. `is_private_now` is None if the entry is deleted by now.
    `characters` is the length of all its texts. `recorded_at` is when it was written, which of an
    import is later than when it was made.
    """

    seq: int
    change_type: ChangeType
    activity: Activity
    before: Activity | None
    is_private_now: bool | None
    characters: int
    recorded_at: datetime

    @classmethod
    def of(cls, change: Change) -> "RecordedChange":
        """Return a change that was just written as the history has it."""
        activity, before = change.activity, change.before
        return cls(
            change.seq,
            change.change_type,
            activity,
            before,
            None if activity.deleted_at else activity.is_private,
            _length(activity) + (_length(before) if before else 0),
            change.written_at,
        )

    @property
    def is_redaction(self) -> bool:
        return self.activity.redacted_version == self.activity.version

    @property
    def is_message_before_lost(self) -> bool:
        """Whether the version before the change was redacted, or removed from the history."""
        entry = self.activity
        return entry.version <= max(entry.redacted_version or 0, entry.first_version)


def _length(activity: Activity) -> int:
    return len(activity.message or "") + len(encode_json(activity.metadata))


@dataclass(frozen=True, slots=True)
class SeenChange:
    """A change of a list as one viewer sees it.

    `activity` is None if the viewer no longer sees the entry. It is set if they see it but it no
    longer passes the filter of the list.
    """

    seq: int
    change_type: ChangeType
    recorded: RecordedChange
    activity: Activity | None

    @property
    def position(self) -> FeedPosition:
        return FeedPosition(self.seq, self.recorded.recorded_at)


@dataclass(frozen=True, slots=True)
class Begun:
    """The first item of a subscription: the changes after a position follow."""

    position: FeedPosition


def as_seen(viewer: Viewer, changes: Sequence[RecordedChange], wanted: Filter) -> list[SeenChange]:
    """Return consecutive changes as changes of the viewer's list of entries that pass `wanted`.

    The content of an entry is shown only to those who see the entry now. If it was deleted or made
    private since, they learn that it is gone, and nothing else. They learn it whatever their
    filter: whether the entry passed it would reveal its content. Where it is not stored any more
    what the entry said before, it is taken to have passed the text of the filter.
    """
    now = {change.activity.id: change.is_private_now for change in changes}
    seen: list[SeenChange] = []
    for change in changes:
        before = change.before if _saw(viewer, change.before) else None
        after = change.activity if can_see(viewer, change.activity) else None
        if before and not after:
            seen.append(SeenChange(change.seq, ChangeType.REMOVED, change, None))
        elif after and _sees(viewer, after, now[after.id]):
            was_listed = before is not None and _passed(wanted, change, before)
            if change_type := _change_of_list(was_listed, wanted.passes(after)):
                seen.append(SeenChange(change.seq, change_type, change, after))
    return seen


def _passed(wanted: Filter, change: RecordedChange, before: Activity) -> bool:
    if wanted.text is not None and change.is_message_before_lost:
        wanted = replace(wanted, text=None)
    return wanted.passes(before)


def _change_of_list(was_listed: bool, is_listed: bool) -> ChangeType | None:
    if is_listed:
        return ChangeType.UPDATED if was_listed else ChangeType.ADDED
    return ChangeType.REMOVED if was_listed else None


def _saw(viewer: Viewer, before: Activity | None) -> bool:
    return before is not None and _sees(viewer, before, before.is_private)


def _sees(viewer: Viewer, activity: Activity, is_private: bool | None) -> bool:
    return is_private is not None and sees_entry(viewer, activity.actor_id, is_private)
