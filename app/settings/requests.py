"""The settings that limit requests to either API: how many, how large, how slow."""

import re
from importlib.util import find_spec
from typing import ClassVar, Final

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, field_validator

from app.settings.section import KIB, Section

_MAX_INT: Final = 2**31 - 1  # of GraphQL
_REDIS_URL: Final = re.compile(r"(redis|valkey)(s|\+unix)?://")


class RateLimitSettings(Section):
    heading: ClassVar[str] = "Rate limits"

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
            "Redis or Valkey in which processes share the counts of tokens and addresses, such as "
            "`redis://:password@cache.internal:6379/0`; without it each process counts for itself."
        ),
    )

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


class HttpSettings(Section):
    heading: ClassVar[str] = "HTTP"

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


class EntrySettings(Section):
    heading: ClassVar[str] = "Entries"

    max_message_length: PositiveInt = Field(
        default=64 * KIB, description="Longest message, in characters."
    )
    max_metadata_bytes: PositiveInt = Field(
        default=64 * KIB, description="Largest metadata, in bytes of compact JSON in UTF-8."
    )
    max_metadata_depth: PositiveInt = Field(
        default=32, description="Deepest nesting of metadata; the object itself is level 1."
    )
