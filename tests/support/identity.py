"""An identity provider of the tests' own, which publishes keys, signs tokens, and misbehaves."""

import asyncio
import base64
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from joserfc import jws
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey

from app.identity.provider import IdentityProvider
from tests.support.service import JSON, Clock

AUDIENCE = "ticket-activity"
KEYS_PATH = "/keys"
DISCOVERY_PATH = "/.well-known/openid-configuration"


@cache
def rsa_key(kid: str, bits: int = 2048) -> RSAKey:
    return RSAKey.generate_key(bits, {"kid": kid})


@cache
def ec_key(kid: str, curve: str = "P-256") -> ECKey:
    return ECKey.generate_key(curve, {"kid": kid})


@cache
def okp_key(kid: str) -> OKPKey:
    return OKPKey.generate_key("Ed25519", {"kid": kid})


def key_set(*keys: Key) -> bytes:
    return json.dumps({"keys": [key.as_dict(private=False) for key in keys]}).encode()


@dataclass
class Provider:
    """`answers` holds a body or a whole HTTP response by path; a path without one is answered 404.

    While `gate` is not set nothing is answered, and while `is_down` each connection is cut.
    """

    clock: Clock
    origin: str = ""
    answers: dict[str, bytes] = field(default_factory=dict)
    is_down: bool = False
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    requests: "Counter[str]" = field(default_factory=Counter)
    asked: asyncio.Event = field(default_factory=asyncio.Event)

    def publish(self, *keys: Key) -> None:
        self.answers[KEYS_PATH] = key_set(*keys)

    def settings(self, **settings: Any) -> IdentityProvider:
        """Return the settings of a service that accepts its tokens."""
        own = {
            "issuer": self.origin,
            "audience": AUDIENCE,
            "jwks_url": self.origin + KEYS_PATH,
            "leeway_seconds": 0,
        }
        return IdentityProvider.model_validate(own | settings)

    def claims(self, **claims: Any) -> JSON:
        now = self.clock()
        own = {
            "iss": self.origin,
            "aud": AUDIENCE,
            "sub": "ada",
            "scope": "openid activity:read activity:write",
            "iat": seconds(now),
            "exp": seconds(now + timedelta(hours=1)),
        }
        return {name: value for name, value in (own | claims).items() if value is not None}

    def token(self, key: Key | None = None, *, alg: str = "RS256", **claims: Any) -> str:
        """Return a signed token; a claim that is None is left out."""
        key = key or rsa_key("one")
        payload = json.dumps(self.claims(**claims)).encode()
        return sign({"alg": alg, "kid": key.kid}, payload, key, alg)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self.is_down:
                return
            path = (await reader.readuntil(b"\r\n\r\n")).split()[1].decode()
            self.requests[path] += 1
            self.asked.set()
            await self.gate.wait()
            writer.write(self._response(path))
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()

    def _response(self, path: str) -> bytes:
        body = self.answers.get(path)
        if body is None:
            return b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
        if body.startswith(b"HTTP/"):
            return body
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


def sign(header: Any, payload: bytes, key: Key, alg: str = "RS256") -> str:
    """Return a token with any header, right or wrong, whose signature is made with `alg`."""
    text = f"{encoded(json.dumps(header).encode())}.{encoded(payload)}"
    return f"{text}.{encoded(jws.JWSRegistry.algorithms[alg].sign(text.encode(), key))}"


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def seconds(time: datetime) -> int:
    return int(time.timestamp())


@asynccontextmanager
async def provider(clock: Clock) -> AsyncIterator[Provider]:
    """Run a provider that publishes the key `one`."""
    running = Provider(clock)
    running.gate.set()
    server = await asyncio.start_server(running.serve, "127.0.0.1", 0)
    async with server:
        running.origin = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        running.publish(rsa_key("one"))
        yield running
        running.gate.set()
