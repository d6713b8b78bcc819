"""The settings of the service as a process: its addresses, who may call it, what it tells."""

from importlib.util import find_spec
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import Field, NonNegativeFloat, field_validator

from app.errors import InvalidInput
from app.identity.provider import IdentityProvider
from app.json_text import parse_json
from app.settings.section import KIB, Section

_DEFAULT_PORTS: Final = {"https": ":443", "http": ":80"}


class ServiceSettings(Section):
    heading: ClassVar[str] = "Service"

    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: Annotated[int, Field(ge=0, le=65535)] = Field(
        default=8000, description="Port to listen on; 0 takes a free one."
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

    @field_validator("host")
    @classmethod
    def _require_host(cls, host: str) -> str:
        if not host.strip():
            raise ValueError(
                "it would listen on every address; where that is meant, say 0.0.0.0 or ::"
            )
        return host

    @field_validator("trusted_proxies")
    @classmethod
    def _require_networks(cls, proxies: str) -> str:
        for proxy in proxies.split(",") if proxies else ():
            ip_network(proxy)  # raises ValueError with a message that names it
        return proxies

    @field_validator("cors_origins")
    @classmethod
    def _require_origins(cls, origins: str) -> str:
        for origin in origins.split(",") if origins else ():
            if mistake := _mistake_in_origin(origin):
                raise ValueError(f"the origin {origin!r} {mistake}")
        return origins


class IdentitySettings(Section):
    heading: ClassVar[str] = "Identity providers"

    identity_providers: tuple[IdentityProvider, ...] = Field(
        default=(),
        description=(
            "Issuers of signed JWTs that are accepted as bearer tokens: a JSON list of objects; "
            "[Identity providers](#tokens-of-an-identity-provider) has their members."
        ),
    )

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


class LogSettings(Section):
    heading: ClassVar[str] = "Log and metrics"

    log_format: Literal["auto", "json", "text"] = Field(
        default="auto",
        description=(
            "How the log is written to standard error: `json`, `text`, or `auto`, which is text on "
            "a terminal and JSON elsewhere."
        ),
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
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
    metrics_host: str = Field(default="127.0.0.1", description="Address to serve /metrics on.")
    opentelemetry: bool = Field(
        default=False,
        description=(
            "Record traces and send them by OTLP over HTTP. The variables of OpenTelemetry say "
            "where (`OTEL_EXPORTER_OTLP_ENDPOINT`) and which (`OTEL_TRACES_SAMPLER`)."
        ),
    )

    @field_validator("opentelemetry")
    @classmethod
    def _require_opentelemetry(cls, opentelemetry: bool) -> bool:  # noqa: FBT001, RUF100
        if opentelemetry and not find_spec("opentelemetry"):
            raise ValueError("it needs the extra: pip install 'ticket-activity[opentelemetry]'")
        return opentelemetry


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
