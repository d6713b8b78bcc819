"""Who sends a request."""

from uuid import UUID

import strawberry

from app.auth import Viewer as AuthViewer
from app.graphql.enums import Scope


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
