"""The arguments of a listing: which entries, in which order."""

from datetime import datetime
from uuid import UUID

import strawberry

from app.activity import listing
from app.activity.listing import MAX_TEXT_LENGTH, MAX_TEXT_WORDS
from app.graphql.enums import ActivityType, OrderDirection, TicketActivityOrderField
from app.graphql.inputs import absent, given


@strawberry.input(
    description=(
        "Which entries to list: those that pass every field given. Null is `INVALID_INPUT`, but "
        "for `actorId`."
    )
)
class TicketActivityFilter:
    types: list[ActivityType] | None = strawberry.field(
        default=strawberry.UNSET, description="Entries of one of these types; `[]` lists none."
    )
    actor_id: UUID | None = strawberry.field(
        default=strawberry.UNSET,
        description="Entries of this author. Null: entries that no actor made.",
    )
    is_private: bool | None = strawberry.field(
        default=strawberry.UNSET, description="Only private entries, or only public ones."
    )
    since: datetime | None = strawberry.field(
        default=strawberry.UNSET, description="Entries created then or later."
    )
    until: datetime | None = strawberry.field(
        default=strawberry.UNSET, description="Entries created before then."
    )
    text: str | None = strawberry.field(
        default=strawberry.UNSET,
        description=(
            "Entries whose message holds every word of this text, as a word or a part of one, in "
            f"any case and order; at most {MAX_TEXT_LENGTH} characters and {MAX_TEXT_WORDS} "
            "different words. A list reads the ticket's entries one by one until the page is full."
        ),
    )

    def to_domain(self) -> listing.Filter:
        """Build the filter. Raises InvalidInput."""
        types = given(self.types, None, "filter", "types")
        wanted = listing.Filter(
            types=None if types is None else frozenset(types),
            actor_id=absent(self.actor_id),
            is_private=given(self.is_private, None, "filter", "isPrivate"),
            since=given(self.since, None, "filter", "since"),
            until=given(self.until, None, "filter", "until"),
            text=given(self.text, None, "filter", "text"),
        )
        listing.check_filter(wanted)
        return wanted


@strawberry.input(description="The order of a listing. Ties are broken by the id.")
class TicketActivityOrder:
    field: TicketActivityOrderField = strawberry.field(
        default=TicketActivityOrderField.CREATED_AT, description="What to order by."
    )
    direction: OrderDirection = strawberry.field(
        default=OrderDirection.ASC, description="The direction."
    )

    def to_domain(self) -> listing.Order:
        return listing.Order(self.field, self.direction)
