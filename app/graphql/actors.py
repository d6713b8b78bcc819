"""Actors as people read them: a name and a picture."""

from uuid import UUID

import strawberry

from app.activity import actors
from app.graphql.context import Info


@strawberry.type(
    description=(
        "Somebody or something that writes. Names come from the tokens of an identity provider, "
        "from `upsertActors` and from the operator; whichever came last counts."
    )
)
class Actor:
    id: strawberry.ID = strawberry.field(
        description="The UUID of the actor, as in `actorId`. `node` does not find it."
    )
    name: str | None = strawberry.field(description="The name; null where it is not known.")
    avatar_url: str | None = strawberry.field(
        description="The address of a picture; null where none is known."
    )

    @classmethod
    def of(cls, actor: actors.Actor) -> "Actor":
        return cls(id=strawberry.ID(str(actor.id)), name=actor.name, avatar_url=actor.avatar_url)


async def load_actor(info: Info, id_: UUID | None) -> Actor | None:
    """Return an actor, together with those that others ask for; None where there is none."""
    if id_ is None:
        return None
    [found] = await info.context.view.load_actors([id_])
    return Actor.of(found or actors.Actor(id_, None, None))
