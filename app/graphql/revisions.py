"""The revisions of an entry, and the connection that lists them."""

from collections.abc import Awaitable
from datetime import datetime
from uuid import UUID

import strawberry

from app.activity.cursors import make_revision_cursor, parse_revision_cursor
from app.activity.page_arguments import parse_size
from app.activity.state import Activity, Redaction, Revision
from app.errors import CursorExpired
from app.graphql.actors import Actor, load_actor
from app.graphql.context import Info
from app.graphql.enums import ChangeType
from app.graphql.page_info import PageInfo, constant
from app.graphql.scalars import JSONObject


@strawberry.type(description="One version of an entry.")
class TicketActivityRevision:
    id: strawberry.ID = strawberry.field(
        description="Identifies the revision in caches. `node` does not find it."
    )
    version: int = strawberry.field(
        description="The version of the entry, without gaps: from 1, or the oldest that is kept."
    )
    change_type: ChangeType = strawberry.field(
        description="The kind of change that made this version."
    )
    changed_at: datetime = strawberry.field(description="When it was made.")
    changed_by_id: UUID | None = strawberry.field(
        description="Who made it; null where no actor did."
    )
    recorded_at: datetime = strawberry.field(
        description=(
            "When it was really written: later than `changedAt` where an importer gave the entry "
            "a time of its own."
        )
    )
    recorded_by_id: UUID | None = strawberry.field(
        description=(
            "Who wrote it: the importer where one gave the entry another actor, `changedById` "
            "otherwise."
        )
    )
    message: str | None = strawberry.field(
        description="The text of this version; null where it had none or is withheld."
    )
    metadata: JSONObject = strawberry.field(
        description="The metadata of this version; an empty object where it is withheld."
    )
    is_private: bool = strawberry.field(description="Whether this version was private.")
    is_withheld: bool = strawberry.field(
        description=(
            "Whether `message` and `metadata` are withheld, because this version was private and "
            "the viewer is neither the author nor has the scope `activity:private`."
        )
    )
    is_redacted: bool = strawberry.field(
        description=(
            "Whether `message` and `metadata` of this version were removed by a later redaction. "
            "They are stored nowhere any more."
        )
    )

    @strawberry.field(description="Who made it, with a name; null where no actor did.")
    async def changed_by(self, info: Info) -> Actor | None:
        return await load_actor(info, self.changed_by_id)

    @strawberry.field(description="Who wrote it, with a name: the actor of `recordedById`.")
    async def recorded_by(self, info: Info) -> Actor | None:
        return await load_actor(info, self.recorded_by_id)

    @classmethod
    def of(cls, revision: Revision) -> "TicketActivityRevision":
        return cls(
            id=strawberry.ID(f"{revision.activity_id}:{revision.version}"),
            version=revision.version,
            change_type=revision.change_type,
            changed_at=revision.changed_at,
            changed_by_id=revision.changed_by_id,
            recorded_at=revision.recorded_at or revision.changed_at,
            recorded_by_id=revision.recorded_by_id or revision.changed_by_id,
            message=revision.message,
            metadata=JSONObject(revision.metadata),
            is_private=revision.is_private,
            is_withheld=revision.is_withheld,
            is_redacted=revision.is_redacted,
        )


@strawberry.type(
    description=(
        "The mark that a redaction leaves: what the entry held up to then was removed for good."
    )
)
class TicketActivityRedaction:
    version: int = strawberry.field(
        description="The version that the redaction made. Those before it cannot come back."
    )
    redacted_at: datetime = strawberry.field(description="When it was made.")
    redacted_by_id: UUID | None = strawberry.field(
        description="Who made it; null where no actor did."
    )
    reason: str | None = strawberry.field(
        description=(
            "Why, as `redactTicketActivity` was told; null where it is withheld, because the entry "
            "was private then and the viewer is neither the author nor has the scope "
            "`activity:private`."
        )
    )

    @strawberry.field(description="Who made it, with a name; null where no actor did.")
    async def redacted_by(self, info: Info) -> Actor | None:
        return await load_actor(info, self.redacted_by_id)

    @classmethod
    def of(cls, redaction: Redaction | None) -> "TicketActivityRedaction | None":
        if redaction is None:
            return None
        return cls(
            version=redaction.version,
            redacted_at=redaction.changed_at,
            redacted_by_id=redaction.changed_by_id,
            reason=redaction.reason,
        )


@strawberry.type(description="A revision with its place in the list.")
class TicketActivityRevisionEdge:
    node: TicketActivityRevision = strawberry.field(description="The revision.")
    cursor: str = strawberry.field(description="Its position, for `after`.")


@strawberry.type(description="A page of the revisions of an entry, the oldest first.")
class TicketActivityRevisionConnection:
    edges: list[TicketActivityRevisionEdge] = strawberry.field(
        description="The revisions with their cursors."
    )
    nodes: list[TicketActivityRevision] = strawberry.field(description="The revisions alone.")
    page_info: PageInfo = strawberry.field(description="Where this page is in the list.")
    total_count: int = strawberry.field(description="How many revisions of the entry are kept.")


def load_revision_connection(
    info: Info, activity: Activity, first: int | None, after: str | None
) -> Awaitable[TicketActivityRevisionConnection]:
    """Load one page, together with those that other entries of the answer ask for.

    The arguments are checked at once rather than by a task of each entry: a wrong one is wrong for
    every entry of the list, so that it ends the list at the first, not after thousands of errors.
    """
    start, size = parse_revision_cursor(after), parse_size(first, "first")
    if 0 < start < activity.first_version - 1:
        raise CursorExpired(
            "The versions after this cursor are not all kept any more",
            "begin with the oldest version",
        )
    return _load(info, activity, start, size)


async def _load(
    info: Info, activity: Activity, start: int, size: int
) -> TicketActivityRevisionConnection:
    revisions = [
        TicketActivityRevision.of(revision)
        for revision in await info.context.revisions(start, size).load(activity)
        # The entry may have changed after it was read: later revisions are left out.
        if revision.version <= activity.version
    ]
    edges = [
        TicketActivityRevisionEdge(node=revision, cursor=make_revision_cursor(revision.version))
        for revision in revisions
    ]
    end = revisions[-1].version if revisions else start
    return TicketActivityRevisionConnection(
        edges=edges,
        nodes=revisions,
        page_info=PageInfo(
            start_cursor=edges[0].cursor if edges else None,
            end_cursor=edges[-1].cursor if edges else None,
            has_next=constant(end < activity.version),
            has_previous=constant(start >= activity.first_version),
        ),
        total_count=activity.version - activity.first_version + 1,
    )
