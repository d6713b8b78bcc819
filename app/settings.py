"""Every setting of the service, read from `TICKET_ACTIVITY_*` environment variables."""

from typing import Annotated

from pydantic import Field, PositiveInt
from pydantic_settings import BaseSettings, SettingsConfigDict

ENV_PREFIX = "TICKET_ACTIVITY_"

KIB = 1024


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
        default=4, description="Connections for reads, beside the one for writes."
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
    graphiql: bool = Field(default=True, description="Serve GraphiQL to browsers at /graphql.")
