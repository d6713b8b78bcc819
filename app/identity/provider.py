"""The settings of an identity provider: whose tokens are accepted, and what their claims mean."""

from collections.abc import Mapping
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from app.auth import Scope

MAX_LEEWAY_SECONDS: Final = 300
_THIS_MACHINE: Final = ("localhost", "127.0.0.1", "::1")

Text = Annotated[str, StringConstraints(min_length=1, max_length=2048)]
ClaimPath = Text | Annotated[tuple[Text, ...], Field(min_length=1, max_length=8)]
"""The name of a claim, or the names that lead to one within other claims."""


def mistake_in_url(url: str) -> str | None:
    """Return why keys must not be fetched from an address: nobody may change them on the way."""
    try:
        parts = urlsplit(url)
        is_local = parts.hostname in _THIS_MACHINE
    except ValueError:
        return "is not a URL"
    if not parts.hostname or parts.username is not None or parts.fragment:
        return "must be a URL with a host, and without a user or a fragment"
    if parts.scheme != "https" and not (parts.scheme == "http" and is_local):
        return "must begin with https:// (or http:// on this machine)"
    return None


def _require_url(url: str) -> str:
    if mistake := mistake_in_url(url):
        raise ValueError(f"it {mistake}")
    return url


class IdentityProvider(BaseModel):
    """One issuer of signed JWTs (RFC 7519).

    `scopes` translates the names of the provider into scopes of this service; without it they are
    the same. A claim of scopes is a list of texts, or a text with spaces between them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    issuer: Annotated[Text, AfterValidator(_require_url)]
    audience: Text | Annotated[tuple[Text, ...], Field(min_length=1)]
    jwks_url: Annotated[Text, AfterValidator(_require_url)] | None = None
    jwks_refresh_seconds: Annotated[int, Field(ge=5, le=86_400)] = 300
    actor_claim: ClaimPath = "sub"
    name_claim: ClaimPath = "name"
    avatar_claim: ClaimPath = "picture"
    scope_claim: ClaimPath = "scope"
    scopes: Mapping[str, tuple[Scope, ...]] | None = None
    leeway_seconds: Annotated[int, Field(ge=0, le=MAX_LEEWAY_SECONDS)] = 30

    @property
    def audiences(self) -> tuple[str, ...]:
        return (self.audience,) if isinstance(self.audience, str) else self.audience

    @property
    def discovery_url(self) -> str:
        """Where the provider names its keys (OpenID Connect Discovery 1.0 section 4)."""
        return self.issuer.rstrip("/") + "/.well-known/openid-configuration"
