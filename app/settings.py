"""Every setting of the service, read from `TICKET_ACTIVITY_*` environment variables."""

from pathlib import Path
from typing import Annotated

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

ENV_PREFIX = "TICKET_ACTIVITY_"

KIB = 1024

_DEFAULT_PORTS = {"https": ":443", "http": ":80"}


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, extra="forbid", frozen=True)

    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: Annotated[int, Field(ge=0, le=65535)] = Field(
        default=8000, description="Port to listen on; 0 takes a free one."
    )
    database_url: str = Field(
        default="sqlite+aiosqlite:///data/ticket-activity.db",
        description="SQLAlchemy address of the database.",
    )
    read_connections: PositiveInt = Field(
        default=4, description="Connections that the reads of all clients share."
    )
    read_queue_size: PositiveInt = Field(
        default=4096,
        description="Operations that may wait for a shared connection; one more is answered BUSY.",
    )
    long_read_connections: PositiveInt = Field(
        default=4, description="Connections for reads that take long, each for one at a time."
    )
    max_long_reads_per_token: PositiveInt = Field(
        default=2, description="Long reads that one token may run at a time, in each process."
    )
    max_search_characters: PositiveInt = Field(
        default=256_000_000,
        description="Characters that the text searches of one operation may look through.",
    )
    timeline_cache_bytes: NonNegativeInt = Field(
        default=16 * KIB * KIB,
        description="Memory for pages and counts of timelines that have not changed, in bytes.",
    )
    write_queue_size: PositiveInt = Field(
        default=4096,
        description="Commands that may wait for the writer; one more is answered BUSY.",
    )
    write_batch_size: PositiveInt = Field(
        default=512, description="Commands that may share one unit of work, and so one commit."
    )
    max_body_bytes: PositiveInt = Field(
        default=KIB * KIB, description="Longest request body, in bytes."
    )
    max_uri_bytes: PositiveInt = Field(
        default=8 * KIB, description="Longest path and query, in bytes."
    )
    max_header_bytes: PositiveInt = Field(
        default=32 * KIB, description="Largest headers, in bytes."
    )
    max_receive_seconds: PositiveFloat = Field(
        default=30, description="How long a request may take to arrive, in seconds."
    )
    max_stall_seconds: PositiveFloat = Field(
        default=30,
        description=(
            "How long a client may take nothing of what it is sent, before it is cut off, in "
            "seconds."
        ),
    )
    drain_seconds: NonNegativeFloat = Field(
        default=1,
        description=(
            "How long idle connections are kept at a shutdown, to answer what is on its way."
        ),
    )
    max_message_length: PositiveInt = Field(
        default=64 * KIB, description="Longest message, in characters."
    )
    max_metadata_bytes: PositiveInt = Field(
        default=64 * KIB, description="Largest metadata, in bytes of compact JSON in UTF-8."
    )
    max_metadata_depth: PositiveInt = Field(
        default=32, description="Deepest nesting of metadata; the object itself is level 1."
    )
    document_cache_size: PositiveInt = Field(
        default=1000, description="GraphQL documents kept parsed and validated."
    )
    persisted_query_cache_size: NonNegativeInt = Field(
        default=1000,
        description="Automatic persisted queries remembered; 0 switches them off.",
    )
    query_deadline_seconds: PositiveFloat = Field(
        default=10, description="A query that runs longer is cancelled, in seconds."
    )
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
        default=20_000,
        description="Cost of a GraphQL operation, as the description of `Query` counts it.",
    )
    max_query_fields: PositiveInt = Field(
        default=500, description="Fields written in a GraphQL document."
    )
    max_query_tokens: PositiveInt = Field(
        default=2000, description="Lexical tokens of a GraphQL document."
    )
    max_response_bytes: PositiveInt = Field(
        default=16 * KIB * KIB,
        description="Largest answer to a GraphQL operation or event, in bytes.",
    )
    interpreted_first: NonNegativeInt = Field(
        default=1,
        description=(
            "How often graphql-core executes an operation before it is compiled, which answers the "
            "same, sooner."
        ),
    )
    introspection: bool = Field(default=True, description="Answer questions about the schema.")
    suggestions: bool = Field(
        default=True, description="Suggest names of the schema where a document has a wrong one."
    )
    trusted_documents: Path | None = Field(
        default=None,
        description=(
            "Manifest of trusted documents: a JSON file of ids and texts, as Relay's compiler and "
            "graphql-codegen write it."
        ),
    )
    trusted_documents_only: bool = Field(
        default=False,
        description="Execute trusted documents and nothing else; GraphiQL then runs no query.",
    )
    cors_origins: str = Field(
        default="",
        description=(
            "Origins whose pages may call the service from a browser, with commas between them."
        ),
    )
    max_subscriptions_per_connection: PositiveInt = Field(
        default=100, description="Operations that one WebSocket may have open."
    )
    max_subscriptions_per_token: PositiveInt = Field(
        default=1000, description="Subscriptions that one token may have open, in each process."
    )
    connection_init_seconds: PositiveFloat = Field(
        default=10, description="How long a WebSocket may wait with its token."
    )
    keep_alive_seconds: PositiveFloat = Field(
        default=15, description="How often an idle stream says that it lives."
    )
    max_stream_seconds: PositiveFloat = Field(
        default=3600, description="How long a stream lives before its client must connect anew."
    )
    websocket_compression: bool = Field(
        default=False,
        description="Compress WebSocket messages, for some 37 KiB of memory a connection.",
    )
    graphiql: bool = Field(default=True, description="Serve GraphiQL to browsers at /graphql.")

    @field_validator("host")
    @classmethod
    def _require_host(cls, host: str) -> str:
        if not host.strip():
            raise ValueError(
                "it would listen on every address; where that is meant, say 0.0.0.0 or ::"
            )
        return host

    @field_validator("cors_origins")
    @classmethod
    def _require_origins(cls, origins: str) -> str:
        for origin in origins.split(",") if origins else ():
            if mistake := _mistake_in_origin(origin):
                raise ValueError(f"the origin {origin!r} {mistake}")
        return origins


def _mistake_in_origin(origin: str) -> str | None:
    """Return why no browser sends this as the header Origin (RFC 6454 section 6.2), if so."""
    scheme, separator, rest = origin.partition("://")
    if not origin:
        return "is empty: one comma too many"
    if "*" in origin:
        return "has a *: origins are named one by one"
    if any(character.isspace() for character in origin):
        return "has a space in it: put only a comma between two origins"
    if not separator or scheme.lower() not in _DEFAULT_PORTS:
        return "does not begin with https:// or http://"
    if rest.endswith("/"):
        return "ends with a slash"
    if set("/?#@") & set(rest):
        return "has more than a scheme, a host and a port"
    if origin != origin.lower():
        return "has capital letters, which browsers send as small ones"
    if rest.endswith(_DEFAULT_PORTS[scheme]):
        return f"names the port {_DEFAULT_PORTS[scheme][1:]}, which browsers leave out"
    return None if rest else "has no host"
