"""Writes changes into the log: who changed which entry, and how, without what it says."""

from collections.abc import Sequence

from app.activity.state import Change
from app.log import events, now


def log_changes(changes: Sequence[Change]) -> None:
    """Write a line for each change, once it is stored."""
    for change in changes:
        activity = change.activity
        line = {
            "time": now(),
            "level": "info",
            "event": "write",
            "ticket": activity.ticket_id,
            "entry": activity.id,
            "version": activity.version,
            "actor": activity.updated_by_id,
            "change": change.change_type.value,
        }
        events.add(line)
