"""The schema, put together from its typed classes; `schema.graphql` is its output."""

from typing import Final

import strawberry
from graphql import ConstObjectValueNode, GraphQLDefaultInput, GraphQLInputObjectType
from strawberry.schema.config import StrawberryConfig

from app.graphql.mutations import Mutation
from app.graphql.queries import Query
from app.graphql.scalars import SCALARS
from app.graphql.subscriptions import Subscription

_DESCRIPTION: Final = """\
The activity timelines of CRM tickets. `Query.ticket` reads one, `Mutation.updateTicketActivity` \
changes an entry, `Subscription.ticketActivityChanges` follows the changes. The description of \
`Query` has the codes of errors and how the cost of an operation is counted.\
"""

schema = strawberry.Schema(
    query=Query,
    mutation=Mutation,
    subscription=Subscription,
    config=StrawberryConfig(scalar_map=SCALARS),
)


def _write_defaults_as_literals() -> None:
    """Give defaults that are objects as literals: graphql-core writes no other for introspection.

    Strawberry sets only the legacy `default_value`, which `ast_from_value` turns into a literal for
    the types of JSON other than objects.
    """
    for type_ in schema._schema.type_map.values():  # Strawberry has no public name for it
        if isinstance(type_, GraphQLInputObjectType):
            for field in type_.fields.values():
                if field.default_value == {}:
                    field.default = GraphQLDefaultInput(literal=ConstObjectValueNode(fields=()))


_write_defaults_as_literals()
# Strawberry neither takes nor prints a description of the schema.
schema._schema.description = _DESCRIPTION


def print_schema() -> str:
    """Return the schema definition language, as committed in `schema.graphql`."""
    roots = "query: Query\n  mutation: Mutation\n  subscription: Subscription"
    return f'"""\n{_DESCRIPTION}\n"""\nschema {{\n  {roots}\n}}\n\n{schema.as_str()}\n'
