"""Every setting of the service, read from `TICKET_ACTIVITY_*` environment variables."""

import re
from importlib.util import find_spec
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Final, Self

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.errors import InvalidInput
from app.identity.provider import IdentityProvider
from app.json_text import parse_json
from app.log import LogFormat, LogLevel

ENV_PREFIX = "TICKET_ACTIVITY_"

KIB = 1024

_DEFAULT_PORTS = {"https": ":443", "http": ":80"}

_MAX_INT: Final = 2**31 - 1  # of GraphQL

_REDIS_URL: Final = re.compile(r"(redis|valkey)(s|\+unix)?://")

HEADINGS: Final = {
    "host": "Service",
    "identity_providers": "Identity providers",
    "log_format": "Log and metrics",
    "database_url": "Database",
    "idempotency_hours": "Idempotency keys",
    "rate_limit_requests": "Rate limits",
    "max_body_bytes": "HTTP",
    "max_message_length": "Entries",
    "max_query_depth": "GraphQL operations",
    "document_cache_size": "GraphQL documents",
    "max_subscriptions_per_connection": "Subscriptions",
}
"""In README.md these headings stand above these settings and those that follow them here."""


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, extra="forbid", frozen=True)

    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: Annotated[int, Field(ge=0, le=65535)] = Field(
        default=8000, description="Port to listen on; 0 takes a free one."
    )
    graphiql: bool = Field(default=True, description="Serve GraphiQL to browsers at /graphql.")
    cors_origins: str = Field(
        default="",
        description=(
            "Origins whose pages may call the service from a browser, separated by commas."
        ),
    )
    drain_seconds: NonNegativeFloat = Field(
        default=1,
        description=(
            "How long idle connections stay open at a shutdown, so that a request already on its "
            "way is answered, in seconds."
        ),
    )
    shutdown_delay_seconds: NonNegativeFloat = Field(
        default=0,
        description=(
            "How long the service goes on after a signal to end while /readyz already says that "
            "it is not ready, so that a load balancer sends its requests elsewhere, in seconds."
        ),
    )

    identity_providers: Annotated[tuple[IdentityProvider, ...], NoDecode] = Field(
        default=(),
        description=(
            "Issuers of signed JWTs that are accepted as bearer tokens: a JSON list of objects; "
            "[Identity providers](#tokens-of-an-identity-provider) has their members."
        ),
    )
    tls_certificate: Path | None = Field(
        default=None,
        description="Certificate chain to serve HTTPS with, in PEM; a reload reads it anew.",
    )
    tls_key: Path | None = Field(
        default=None, description="Key of the certificate, where it is in a file of its own."
    )
    trusted_proxies: str = Field(
        default="",
        description=(
            "Addresses or networks of proxies, separated by commas. Only from these "
            "`X-Forwarded-For` and `X-Forwarded-Proto` are believed."
        ),
    )

    log_format: LogFormat = Field(
        default="auto",
        description=(
            "How the log is written to standard error: `json`, `text`, or `auto`, which is text on "
            "a terminal and JSON elsewhere."
        ),
    )
    log_level: LogLevel = Field(
        default="info", description="Least level logged: debug, info, warning or error."
    )
    log_requests: bool = Field(default=True, description="Log a line for each request.")
    log_writes: bool = Field(default=True, description="Log a line for each committed write.")
    log_buffer_bytes: Annotated[int, Field(ge=64 * KIB)] = Field(
        default=4 * KIB * KIB,
        description=(
            "Memory for lines of the log that standard error does not take yet, in bytes. Lines "
            "beyond it are dropped, and counted in a line of their own."
        ),
    )
    metrics_port: Annotated[int, Field(ge=1, le=65535)] | None = Field(
        default=None,
        description="Port of /metrics for Prometheus; without it there is none. It needs no token.",
    )
    opentelemetry: bool = Field(
        default=False,
        description=(
            "Record traces and send them by OTLP over HTTP. The variables of OpenTelemetry say "
            "where (`OTEL_EXPORTER_OTLP_ENDPOINT`) and which (`OTEL_TRACES_SAMPLER`)."
        ),
    )
    metrics_host: str = Field(default="127.0.0.1", description="Address to serve /metrics on.")

    database_url: str = Field(
        default="sqlite+aiosqlite:///data/ticket-activity.db",
        description="SQLAlchemy address of the database.",
    )
    migrate_at_start: bool = Field(
        default=True,
        description="Migrate the database at the start; else a start refuses one that is behind.",
    )
    database_check_seconds: NonNegativeFloat = Field(
        default=5,
        description=(
            "How long a start looks through the SQLite file for damage, at most, in seconds; 0 for "
            "not at all."
        ),
    )
    database_start_seconds: NonNegativeFloat = Field(
        default=30, description="How long a start waits for PostgreSQL to answer, in seconds."
    )
    database_connect_seconds: PositiveFloat = Field(
        default=5, description="How long a connection to PostgreSQL may take to open, in seconds."
    )
    database_lock_seconds: PositiveFloat = Field(
        default=5,
        description=(
            "How long a write waits for a lock of PostgreSQL, then it is BUSY, in seconds. A write "
            "that holds locks and does nothing for so long is rolled back."
        ),
    )
    database_statement_seconds: PositiveFloat = Field(
        default=30, description="How long a statement may run in PostgreSQL, in seconds."
    )
    database_answer_seconds: PositiveFloat = Field(
        default=5,
        description=(
            "How long PostgreSQL may leave unanswered what needs no time, or whose time is over; "
            "then the connection is given up, in seconds."
        ),
    )
    database_poll_seconds: PositiveFloat = Field(
        default=1,
        description=(
            "How often PostgreSQL is asked for changes by other processes, beside listening for "
            "them, in seconds."
        ),
    )
    database_listen: bool = Field(
        default=True,
        description="Listen to PostgreSQL for changes by other processes; else it is only asked.",
    )
    database_pooler: bool = Field(
        default=False,
        description=(
            "A pooler in transaction mode, such as PgBouncer, stands before PostgreSQL: nothing is "
            "prepared, and nothing listens."
        ),
    )
    read_connections: PositiveInt = Field(
        default=4, description="Connections that the reads of all clients share."
    )
    read_queue_size: PositiveInt = Field(
        default=4096,
        description="Operations that may wait for a shared connection; one more is answered BUSY.",
    )
    long_read_connections: PositiveInt = Field(
        default=4, description="Connections for long reads; each serves one at a time."
    )
    max_long_reads_per_token: PositiveInt = Field(
        default=2, description="Long reads that one token may run at a time, in each process."
    )
    max_search_characters: PositiveInt = Field(
        default=256_000_000,
        description=(
            "Characters of messages that are not plain ASCII which the text searches of one "
            "operation may read."
        ),
    )
    timeline_cache_bytes: NonNegativeInt = Field(
        default=16 * KIB * KIB,
        description="Memory for cached pages and counts of timelines, in bytes.",
    )
    write_queue_size: PositiveInt = Field(
        default=4096,
        description="Commands that may wait for the writer; one more is answered BUSY.",
    )
    write_wait_seconds: PositiveFloat = Field(
        default=10,
        description="How long a command may wait for the writer, then it is BUSY, in seconds.",
    )
    write_batch_size: PositiveInt = Field(
        default=512, description="Commands that may share one transaction."
    )

    idempotency_hours: PositiveFloat = Field(
        default=24, description="How long an Idempotency-Key and its answer are kept, in hours."
    )
    max_idempotency_keys_per_token: PositiveInt = Field(
        default=100_000,
        description="Idempotency keys of one token that may be kept, as counted once a minute.",
    )
    max_idempotent_answer_bytes: PositiveInt = Field(
        default=256 * KIB,
        description=(
            "Longest answer that is kept for an Idempotency-Key, in bytes. The request of a longer "
            "one has one effect all the same, but its repeat is answered anew."
        ),
    )

    rate_limit_requests: NonNegativeInt = Field(
        default=6000,
        le=_MAX_INT,
        description=(
            "Requests and operations a minute that one token may send; 0 for no limit. Unless it "
            "is set there is none with `--demo`, nor where only this machine reaches the service: "
            "on a loopback address, with no proxy named. So with the next two."
        ),
    )
    rate_limit_cost: NonNegativeInt = Field(
        default=1_000_000,
        le=_MAX_INT,
        description="Cost a minute of the GraphQL operations of one token; 0 for no limit.",
    )
    rate_limit_failures: NonNegativeInt = Field(
        default=30,
        description=(
            "Requests a minute without a valid token that one address may send before each more is "
            "answered a second later; 0 for no limit."
        ),
    )
    rate_limit_redis_url: str = Field(
        default="",
        description=(
            "Redis or Valkey in which processes share the counts of tokens, such as "
            "`redis://:password@cache.internal:6379/0`; without it each process counts for itself."
        ),
    )

    max_body_bytes: PositiveInt = Field(
        default=KIB * KIB, description="Longest request body, in bytes."
    )
    max_uri_bytes: PositiveInt = Field(
        default=8 * KIB, description="Longest request target (path and query), in bytes."
    )
    max_header_bytes: PositiveInt = Field(
        default=32 * KIB, description="Largest header section of a request, in bytes."
    )
    max_receive_seconds: PositiveFloat = Field(
        default=30, description="How long a request may take to arrive, in seconds."
    )
    max_stall_seconds: PositiveFloat = Field(
        default=30,
        description=(
            "How long a client may read nothing of what it is sent before its connection is "
            "closed, in seconds."
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

    @field_validator("host")
    @classmethod
    def _require_host(cls, host: str) -> str:
        if not host.strip():
            raise ValueError(
                "it would listen on every address; where that is meant, say 0.0.0.0 or ::"
            )
        return host

    @field_validator("identity_providers", mode="before")
    @classmethod
    def _parse_identity_providers(cls, providers: object) -> Any:
        if not isinstance(providers, str):
            return providers
        try:
            return parse_json(providers or "[]", "it")
        except InvalidInput as error:
            raise ValueError(error.message.removesuffix(".")) from None

    @field_validator("identity_providers")
    @classmethod
    def _require_one_for_each_issuer(
        cls, providers: tuple[IdentityProvider, ...]
    ) -> tuple[IdentityProvider, ...]:
        if len({provider.issuer for provider in providers}) < len(providers):
            raise ValueError("it names one issuer twice")
        return providers

    @field_validator("trusted_proxies")
    @classmethod
    def _require_networks(cls, proxies: str) -> str:
        for proxy in proxies.split(",") if proxies else ():
            ip_network(proxy)  # raises ValueError with a message that names it
        return proxies

    @field_validator("opentelemetry")
    @classmethod
    def _require_opentelemetry(cls, opentelemetry: bool) -> bool:  # noqa: FBT001, RUF100
        if opentelemetry and not find_spec("opentelemetry"):
            raise ValueError("it needs the extra: pip install 'ticket-activity[opentelemetry]'")
        return opentelemetry

    @field_validator("rate_limit_redis_url")
    @classmethod
    def _require_redis(cls, url: str) -> str:
        if url and not _REDIS_URL.match(url):
            raise ValueError(
                "it begins with redis://, rediss:// (with TLS) or redis+unix://, or with valkey in "
                "the place of redis"
            )
        if url and not all(map(find_spec, ("limits", "redis"))):
            raise ValueError("it needs the extra: pip install 'ticket-activity[redis]'")
        return url

    @model_validator(mode="after")
    def _require_cost_of_one_operation(self) -> Self:
        if 0 < self.rate_limit_cost < self.max_query_cost:
            raise ValueError(
                f"{ENV_PREFIX}RATE_LIMIT_COST is {self.rate_limit_cost}, and one operation may "
                f"cost {self.max_query_cost} ({ENV_PREFIX}MAX_QUERY_COST)"
            )
        return self

    def without_default_rate_limits(self) -> Self:
        """Return the settings without limits of rates that are not set, for a service to try."""
        limits = ("rate_limit_requests", "rate_limit_cost", "rate_limit_failures")
        unset = {name: 0 for name in limits if name not in self.model_fields_set}
        return self.model_copy(update=unset)

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
