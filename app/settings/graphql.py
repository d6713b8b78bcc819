"""The settings of GraphQL: its operations, documents and subscriptions."""

from pathlib import Path
from typing import ClassVar

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from app.settings.section import KIB, Section


class OperationSettings(Section):
    heading: ClassVar[str] = "GraphQL operations"

    max_query_depth: PositiveInt = Field(
        default=20, description="Deepest nesting of the fields of a GraphQL operation."
    )
    max_query_root_fields: PositiveInt = Field(
        default=20, description="Fields at the root of a GraphQL operation."
    )
    max_query_aliases: NonNegativeInt = Field(
        default=100, description="Aliases in a GraphQL operation."
    )
    max_query_directives: NonNegativeInt = Field(
        default=100, description="Directives in a GraphQL operation."
    )
    max_query_cost: PositiveInt = Field(
        default=10_000,
        description=(
            "Highest cost of a GraphQL operation; the description of `Query` says how it is "
            "counted."
        ),
    )
    max_query_fields: PositiveInt = Field(
        default=500,
        description=(
            "Fields written in a GraphQL document, and fields of an operation, with those of a "
            "fragment each time it is spread."
        ),
    )
    max_query_fragments: NonNegativeInt = Field(
        default=80, description="Fragments defined in a GraphQL document."
    )
    max_query_tokens: PositiveInt = Field(
        default=2000, description="Lexical tokens of a GraphQL document."
    )
    query_deadline_seconds: PositiveFloat = Field(
        default=10, description="How long a query may run before it is cancelled, in seconds."
    )
    max_response_bytes: PositiveInt = Field(
        default=16 * KIB * KIB,
        description="Largest response to a GraphQL operation or event, in bytes.",
    )
    introspection: bool = Field(default=True, description="Answer introspection queries.")
    suggestions: bool = Field(
        default=True, description="Suggest names of the schema when a document has a wrong one."
    )


class DocumentSettings(Section):
    heading: ClassVar[str] = "GraphQL documents"

    document_cache_size: PositiveInt = Field(
        default=1000, description="Parsed and validated GraphQL documents kept in memory."
    )
    persisted_query_cache_size: NonNegativeInt = Field(
        default=1000, description="Automatic persisted queries kept in memory; 0 switches them off."
    )
    trusted_documents: Path | None = Field(
        default=None,
        description=(
            "Manifest of trusted documents: a JSON file of ids and texts, as Relay's compiler and"
            " graphql-codegen write it."
        ),
    )
    trusted_documents_only: bool = Field(
        default=False, description="Execute trusted documents only; GraphiQL then runs no query."
    )
    interpreted_first: NonNegativeInt = Field(
        default=1,
        description=(
            "How many times graphql-core executes an operation before it is compiled. A compiled "
            "operation gives the same response, faster."
        ),
    )


class SubscriptionSettings(Section):
    heading: ClassVar[str] = "Subscriptions"

    max_subscriptions_per_connection: PositiveInt = Field(
        default=100, description="Operations that one WebSocket may have open."
    )
    max_subscriptions_per_token: PositiveInt = Field(
        default=1000, description="Subscriptions that one token may have open, in each process."
    )
    connection_init_seconds: PositiveFloat = Field(
        default=10,
        description=("How long a WebSocket may stay open before it sends its token, in seconds."),
    )
    keep_alive_seconds: PositiveFloat = Field(
        default=15,
        description="Time between two keep-alive messages on an idle stream, in seconds.",
    )
    max_stream_seconds: PositiveFloat = Field(
        default=3600,
        description=(
            "How long a stream may last before its client must connect again, in seconds."
        ),
    )
    websocket_compression: bool = Field(
        default=False,
        description=(
            "Compress WebSocket messages; takes about 37 KiB of memory for each connection."
        ),
    )
