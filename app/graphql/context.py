"""What a resolver reaches through `info.context`: the viewer and the timeline, batched."""

from dataclasses import dataclass, field
from functools import partial
from typing import TypeAlias
from uuid import UUID

import strawberry
from strawberry.dataloader import DataLoader

from app.activity.state import Activity, Ticket
from app.auth import Viewer
from app.timeline import Timeline


@dataclass(slots=True)
class Context:
    """One for each operation: what it loads is loaded once, many keys at a time."""

    timeline: Timeline
    viewer: Viewer
    tickets: DataLoader[UUID, Ticket | None] = field(init=False)
    activities: DataLoader[UUID, Activity | None] = field(init=False)

    def __post_init__(self) -> None:
        self.tickets = DataLoader(partial(self.timeline.load_tickets, self.viewer))
        self.activities = DataLoader(partial(self.timeline.load_activities, self.viewer))

    def forget(self) -> None:
        """Drop what was loaded: a mutation has changed it, and the next one may look again."""
        self.tickets.clear_all()
        self.activities.clear_all()


Info: TypeAlias = strawberry.Info[Context, None]
