"""Who sends a request, and how much more they may send."""

from datetime import datetime, timedelta
from uuid import UUID

import strawberry

from app.auth import Viewer as AuthViewer
from app.graphql.enums import Scope
from app.rate_limits import Quota


@strawberry.type(description="The actor and the token of the request.")
class Viewer:
    id: strawberry.ID = strawberry.field(
        description=(
            "Names the token for good, for caches: two tokens of one actor are two viewers, but "
            "those that an identity provider issues to one actor are one. `node` does not find it."
        )
    )
    actor_id: UUID = strawberry.field(description="The actor who is recorded with every change.")
    name: str = strawberry.field(
        description=(
            "The name the token was given when it was issued; with an identity provider, the name "
            "of the actor in the token."
        )
    )
    scopes: list[Scope] = strawberry.field(description="The scopes of the token.")

    @classmethod
    def of(cls, viewer: AuthViewer) -> "Viewer":
        return cls(
            id=strawberry.ID(viewer.token_id),
            actor_id=viewer.actor_id,
            name=viewer.name,
            scopes=sorted(viewer.scopes),
        )


@strawberry.type(
    description=(
        "The cost that the operations of the token may have in a minute, which begins with its "
        "first request. The number of its requests is limited, too: the header fields `RateLimit` "
        "and `RateLimit-Policy` of each response have both."
    )
)
class RateLimit:
    cost: int = strawberry.field(
        description="What this operation costs; the description of `Query` says how it is counted."
    )
    limit: int = strawberry.field(description="The cost that the token may have in a minute.")
    remaining: int = strawberry.field(description="What is left of it after this operation.")
    reset_at: datetime = strawberry.field(description="When the minute ends.")

    @classmethod
    def of(cls, quota: Quota | None, now: datetime) -> "RateLimit | None":
        if not quota or not quota.cost:
            return None
        window = quota.cost
        return cls(
            cost=quota.spent,
            limit=window.limit.amount,
            remaining=window.remaining,
            reset_at=now + timedelta(seconds=window.ends_at - quota.counted_at),
        )
