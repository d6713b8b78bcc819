"""What a resolver reaches through `info.context`: the viewer and the timeline, batched."""

from dataclasses import dataclass, field
from functools import partial
from typing import TypeAlias
from uuid import UUID

import strawberry
from strawberry.dataloader import DataLoader

from app.activity.state import Activity, Revision, Ticket
from app.auth import Viewer
from app.timeline import Timeline


@dataclass(slots=True)
class Context:
    """One for each operation: what it loads is loaded once, many keys at a time.

    `last_event_id` is where a client resumes a stream of events.
    """

    timeline: Timeline
    viewer: Viewer
    last_event_id: str | None = None
    tickets: DataLoader[UUID, Ticket | None] = field(init=False)
    activities: DataLoader[UUID, Activity | None] = field(init=False)
    _revisions: dict[tuple[int, int], DataLoader[Activity, list[Revision]]] = field(
        default_factory=dict
    )

    def __post_init__(self) -> None:
        self.tickets = DataLoader(partial(self.timeline.load_tickets, self.viewer))
        self.activities = DataLoader(partial(self.timeline.load_activities, self.viewer))

    def revisions(self, after: int, size: int) -> "DataLoader[Activity, list[Revision]]":
        """The loader of one page of revisions, for all entries that ask for the same page."""
        if (after, size) not in self._revisions:
            load = partial(self.timeline.load_revisions, self.viewer, after=after, size=size)
            self._revisions[after, size] = DataLoader(load, cache_key_fn=_version_key)
        return self._revisions[after, size]

    def forget(self) -> None:
        """Drop what was loaded: a mutation has changed it, and the next one may look again."""
        self.tickets.clear_all()
        self.activities.clear_all()
        self._revisions.clear()


def _version_key(activity: Activity) -> tuple[UUID, int]:
    return activity.id, activity.version


Info: TypeAlias = strawberry.Info[Context, None]
