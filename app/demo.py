"""A small timeline to try the service on: two tickets, two authors, entries of all seven types."""

from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from app.activity.commands import Command, CreateActivity, CreateTicket, MergeTickets
from app.activity.state import ActivityType
from app.activity.values import JSONObject
from app.auth import Scope, Viewer
from app.timeline import Timeline


def demo_id(number: int) -> UUID:
    return UUID(f"019320a4-0000-7000-8000-{number:012}")


PRINTER: Final = demo_id(1)
NETWORK: Final = demo_id(2)
COMMENT: Final = demo_id(101)
ADA: Final = Viewer(demo_id(901), "Ada", frozenset(Scope), "demo")
GRACE: Final = Viewer(demo_id(902), "Grace", frozenset(Scope), "demo")
ALAN: Final = Viewer(demo_id(903), "Alan", frozenset({Scope.READ, Scope.WRITE}), "demo")


def _entry(
    ticket_id: UUID,
    number: int,
    activity_type: ActivityType,
    message: str | None = None,
    metadata: JSONObject | None = None,
    *,
    is_private: bool = False,
    document_id: UUID | None = None,
) -> CreateActivity:
    return CreateActivity(
        ticket_id=ticket_id,
        activity_id=demo_id(number),
        activity_type=activity_type,
        message=message,
        metadata=metadata or {},
        is_private=is_private,
        document_id=document_id,
    )


_STORY: Final[list[tuple[Viewer, Command]]] = [
    (ADA, CreateTicket(PRINTER, "The printer on floor 3 prints blank pages", {"channel": "mail"})),
    (
        ADA,
        _entry(
            PRINTER, 101, ActivityType.COMMENT, "Have you tried another tray?", {"mood": "hopeful"}
        ),
    ),
    (GRACE, _entry(PRINTER, 102, ActivityType.VIEW)),
    (
        GRACE,
        _entry(
            PRINTER,
            103,
            ActivityType.FIELD_CHANGE,
            metadata={"field": "priority", "from": "low", "to": "high"},
        ),
    ),
    (
        GRACE,
        _entry(
            PRINTER,
            104,
            ActivityType.DOCUMENT_UPLOAD,
            "A photo of the page",
            {"name": "page.jpg", "bytes": 48213},
            document_id=demo_id(801),
        ),
    ),
    (
        GRACE,
        _entry(
            PRINTER,
            105,
            ActivityType.COMMENT,
            "The customer is about to cancel: be kind.",
            is_private=True,
        ),
    ),
    (
        ADA,
        _entry(
            PRINTER, 106, ActivityType.COMMENT, "Spoke to their boss on the phone.", is_private=True
        ),
    ),
    (GRACE, CreateTicket(NETWORK, "No network on floor 3", {"channel": "phone"})),
    (
        GRACE,
        MergeTickets(NETWORK, PRINTER, merged_into_id=demo_id(201), merged_from_id=demo_id(107)),
    ),
]

_STEP: Final = timedelta(minutes=30)


class DemoClock:
    """A clock for the demo: entries are half an hour apart, and the last one is at `now`."""

    def __init__(self, now: datetime) -> None:
        self._next = now - (len(_STORY) - 1) * _STEP

    def __call__(self) -> datetime:
        time, self._next = self._next, self._next + _STEP
        return time


async def load_demo(timeline: Timeline) -> None:
    """Submit the commands of the demo one after the other."""
    for viewer, command in _STORY:
        await timeline.submit(viewer, command)


def demo_hints(origin: str, token: str, token_of_alan: str) -> str:
    """Return what to try first: GraphiQL as two viewers, and one update through each API."""
    return f"""\
GraphiQL as Ada, who may do everything
  {origin}/graphql#token={token}

GraphiQL as Alan, who sees no private entries; open it in a second window
  {origin}/graphql#token={token_of_alan}

REST
  curl --request PUT \\
    --url {origin}/v1/crm/tickets/{PRINTER}/activity/{COMMENT} \\
    --header 'Authorization: Bearer {token}' \\
    --header 'Content-Type: application/json' \\
    --data '{{"message": "Have you tried turning it off and on again?"}}'

GraphQL
  curl --request POST \\
    --url {origin}/graphql \\
    --header 'Authorization: Bearer {token}' \\
    --header 'Content-Type: application/json' \\
    --data '{{"query": "mutation($input: UpdateTicketActivityInput!) {{ \
updateTicketActivity(input: $input) {{ ticketActivity {{ id message version }} \
userErrors {{ code message path }} }} }}", "variables": {{"input": {{\
"ticketId": "{PRINTER}", "activityId": "{COMMENT}", \
"message": "And another cable?"}}}}}}'

Ctrl-C ends the service; the next start keeps the data. The tokens are valid for a day.
"""
