"""The schema, put together from its typed classes; `schema.graphql` is its output."""

import strawberry
from strawberry.schema.config import StrawberryConfig

from app.graphql.mutations import Mutation
from app.graphql.queries import Query
from app.graphql.scalars import SCALARS
from app.graphql.subscriptions import Subscription

schema = strawberry.Schema(
    query=Query,
    mutation=Mutation,
    subscription=Subscription,
    config=StrawberryConfig(scalar_map=SCALARS),
)


def print_schema() -> str:
    """Return the schema definition language, as committed in `schema.graphql`."""
    return f"{schema.as_str()}\n"
