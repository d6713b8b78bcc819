"""Signed JWTs of an identity provider as bearer tokens: who they are, and which are refused."""

import hmac
import json
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

import httpx2
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from joserfc.jwk import Key

from app.auth import Scope
from app.cli import main
from app.errors import Unauthenticated
from app.identity import tokens
from app.identity.keys import ProviderKeys
from app.identity.tokens import TokenVerifier
from app.settings import Settings
from tests.support.identity import (
    AUDIENCE,
    Provider,
    ec_key,
    encoded,
    okp_key,
    provider,
    rsa_key,
    seconds,
    sign,
)
from tests.support.service import JSON, Client, Clock, Service, start
from tests.test_rest import assert_problem
from tests.test_tokens import assert_refused

VIEWER = "{ viewer { id actorId name scopes } }"
UUID_OF_ADA = "0190a3f0-5c1e-7b2a-9d3e-4f5a6b7c8d9e"


pytestmark = pytest.mark.any_engine


@pytest.fixture
async def idp() -> AsyncIterator[Provider]:
    async with provider(Clock()) as running:
        yield running


def accepting(settings: Settings, *providers: Any) -> Settings:
    return settings.model_copy(update={"identity_providers": providers})


@pytest.fixture
async def service(idp: Provider, settings: Settings) -> AsyncIterator[Service]:
    async with start(accepting(settings, idp.settings()), idp.clock) as running:
        yield running


def client_of(service: Service, token: str) -> Client:
    return Client(service.http, UUID(int=0), token)


async def viewer(service: Service, token: str) -> JSON:
    document = await client_of(service, token).graphql(VIEWER)
    assert "errors" not in document, document
    found: JSON = document["data"]["viewer"]
    return found


# Who they are


async def test_an_actor_is_derived_from_the_issuer_and_the_subject(
    service: Service, idp: Provider
) -> None:
    found = await viewer(service, idp.token(name="Ada Lovelace"))
    again = await viewer(service, idp.token(name="Ada King"))
    other = await viewer(service, idp.token(sub="alan"))

    expected = str(uuid5(uuid5(NAMESPACE_URL, idp.origin), "ada"))
    assert found == {
        "id": f"jwt_{expected}",
        "actorId": expected,
        "name": "Ada Lovelace",
        "scopes": ["READ", "WRITE"],
    }
    assert again == found | {"name": "Ada King"}
    assert other["name"] == "alan"
    assert other["actorId"] != expected


async def test_a_subject_that_is_a_uuid_is_the_actor(service: Service, idp: Provider) -> None:
    found = await viewer(service, idp.token(sub=UUID_OF_ADA.upper()))

    assert found["actorId"] == UUID_OF_ADA
    assert found["id"] != f"jwt_{UUID_OF_ADA}"


async def test_both_doors_write_as_the_actor_of_the_token(service: Service, idp: Provider) -> None:
    ada = client_of(service, idp.token())
    entry = await ada.create_activity(await ada.create_ticket(), message="1")

    response = await ada.put(entry["ticketId"], entry["id"], {"message": "2"})

    assert response.status_code == 200
    assert response.json()["actorId"] == (await viewer(service, ada.token))["actorId"]


@pytest.mark.parametrize(
    ("key", "alg"),
    [
        (rsa_key("rsa"), "RS512"),
        (rsa_key("rsa"), "PS256"),
        (ec_key("ec"), "ES256"),
        (ec_key("ec384", "P-384"), "ES384"),
        (okp_key("okp"), "EdDSA"),
        (okp_key("okp"), "Ed25519"),
    ],
    ids=["RS512", "PS256", "ES256", "ES384", "EdDSA", "Ed25519"],
)
async def test_asymmetric_algorithms_are_accepted(
    service: Service, idp: Provider, key: Key, alg: str
) -> None:
    idp.publish(key)

    assert (await viewer(service, idp.token(key, alg=alg)))["name"] == "ada"


@pytest.mark.parametrize(
    ("settings_of", "claims", "scopes"),
    [
        ({}, {"scope": "activity:read other activity:private"}, ["READ", "PRIVATE"]),
        ({}, {"scope": ["activity:moderate", 7, None]}, ["MODERATE"]),
        ({"scope_claim": "scp"}, {"scp": ["activity:read"]}, ["READ"]),
        ({"scopes": {}}, {"scope": "activity:read activity:moderate"}, []),
        (
            {
                "scope_claim": ["realm_access", "roles"],
                "scopes": {"agent": ["activity:read", "activity:write"], "boss": list(Scope)},
            },
            {"realm_access": {"roles": ["agent", "activity:moderate"]}},
            ["READ", "WRITE"],
        ),
        (
            {"scope_claim": "permissions", "scopes": {"tickets read": ["activity:read"]}},
            {"permissions": ["tickets read"]},
            ["READ"],
        ),
    ],
)
async def test_scopes_are_read_where_the_settings_say(
    settings: Settings, idp: Provider, settings_of: JSON, claims: JSON, scopes: list[str]
) -> None:
    async with start(accepting(settings, idp.settings(**settings_of)), idp.clock) as service:
        found = await viewer(service, idp.token(**claims))

    assert set(found["scopes"]) == set(scopes)


@pytest.mark.parametrize("scope", [None, "", "tickets:read", {"activity:read": True}, 5])
async def test_without_a_scope_of_meaning_everything_is_forbidden(
    service: Service, idp: Provider, scope: Any
) -> None:
    ada = client_of(service, idp.token(scope=scope))

    assert (await viewer(service, ada.token))["scopes"] == []
    assert_problem(await ada.get(UUID_OF_ADA, UUID_OF_ADA), 403, "FORBIDDEN")


async def test_several_issuers_are_accepted_each_with_its_own_keys(
    settings: Settings, idp: Provider
) -> None:
    async with provider(idp.clock) as other:
        other.publish(rsa_key("two"))
        both = accepting(settings, idp.settings(), other.settings())
        async with start(both, idp.clock) as service:
            found = [
                await viewer(service, idp.token()),
                await viewer(service, other.token(rsa_key("two"))),
            ]
            refused = await assert_refused(service, f"Bearer {other.token(rsa_key('one'))}")

    assert found[0]["actorId"] != found[1]["actorId"]
    assert "does not publish" in refused


async def test_tokens_of_the_service_are_accepted_beside_them(service: Service) -> None:
    author = await service.client()

    assert (await viewer(service, author.token))["actorId"] == str(author.actor_id)


async def test_without_providers_no_jwt_is_accepted(settings: Settings, idp: Provider) -> None:
    async with start(settings, idp.clock) as service:
        assert "well-formed" in await assert_refused(service, f"Bearer {idp.token()}")

    assert not idp.requests


# Which are refused


def forged(idp: Provider, header: JSON, payload: Any = None) -> str:
    """Return a token with any header and payload, signed by the key of the provider."""
    body = payload if isinstance(payload, bytes) else json.dumps(payload or idp.claims()).encode()
    return sign(header, body, rsa_key("one"))


def unsigned(idp: Provider) -> str:
    header = encoded(b'{"alg":"none","kid":"one"}')
    return f"{header}.{encoded(json.dumps(idp.claims()).encode())}."


def signed_by_the_public_key_as_secret(idp: Provider) -> str:
    header = encoded(b'{"alg":"HS256","kid":"one"}')
    text = f"{header}.{encoded(json.dumps(idp.claims()).encode())}"
    secret = rsa_key("one").as_pem(private=False)
    return f"{text}.{encoded(hmac.digest(secret, text.encode(), 'sha256'))}"


def changed(token: str) -> str:
    header, payload, signature = token.split(".")
    return f"{header}.{payload}.{'A' if signature[0] != 'A' else 'B'}{signature[1:]}"


HEAD = {"alg": "RS256", "kid": "one"}
BAD: dict[str, tuple[Callable[[Provider], str], str]] = {
    "wrong signature": (lambda idp: changed(idp.token()), "signature"),
    "no signature": (lambda idp: idp.token().rpartition(".")[0] + ".", "signature"),
    "signed by another key": (
        lambda idp: sign(HEAD, json.dumps(idp.claims()).encode(), rsa_key("x")),
        "signature",
    ),
    "alg none": (unsigned, "algorithms"),
    "a public key as a secret": (signed_by_the_public_key_as_secret, "algorithms"),
    "alg of another type of key": (lambda idp: forged(idp, HEAD | {"alg": "ES256"}), "signature"),
    "alg is no text": (lambda idp: forged(idp, HEAD | {"alg": ["RS256"]}), "algorithms"),
    "no alg": (lambda idp: forged(idp, {"kid": "one"}), "well-formed"),
    "an extension that must be understood": (
        lambda idp: forged(idp, HEAD | {"crit": ["exp"], "exp": 1}),
        "signature",
    ),
    "the payload is not encoded": (
        lambda idp: forged(idp, HEAD | {"b64": False, "crit": ["b64"]}),
        "well-formed",
    ),
    "other issuer": (lambda idp: idp.token(iss="https://other.test"), "issuer"),
    "issuer with a slash more": (lambda idp: idp.token(iss=idp.origin + "/"), "issuer"),
    "no issuer": (lambda idp: idp.token(iss=None), "issuer"),
    "issuer is a list": (lambda idp: forged(idp, HEAD, idp.claims(iss=[idp.origin])), "issuer"),
    "other audience": (lambda idp: idp.token(aud="other"), "audience"),
    "empty audience": (lambda idp: idp.token(aud=[]), "audience"),
    "no audience": (lambda idp: idp.token(aud=None), "lacks the claim aud"),
    "expired": (lambda idp: idp.token(exp=seconds(idp.clock())), "expired"),
    "no expiry": (lambda idp: idp.token(exp=None), "lacks the claim exp"),
    "expiry is a text": (lambda idp: idp.token(exp="2099"), "exp"),
    "expiry is true": (lambda idp: forged(idp, HEAD, idp.claims(exp=True)), "exp"),
    "not yet valid": (lambda idp: idp.token(nbf=seconds(idp.clock()) + 1), "not valid yet"),
    "issued in the future": (lambda idp: idp.token(iat=seconds(idp.clock()) + 9), "future"),
    "no kid": (lambda idp: forged(idp, {"alg": "RS256"}), "kid"),
    "kid is a number": (lambda idp: forged(idp, HEAD | {"kid": 1}), "kid"),
    "unknown kid": (lambda idp: idp.token(rsa_key("other")), "does not publish"),
    "a key in the header": (
        lambda idp: forged(idp, {"alg": "RS256", "jwk": rsa_key("x").as_dict(private=False)}),
        "kid",
    ),
    "no subject": (lambda idp: idp.token(sub=None), "sub"),
    "empty subject": (lambda idp: forged(idp, HEAD, idp.claims(sub="")), "sub"),
    "subject is a number": (lambda idp: forged(idp, HEAD, idp.claims(sub=7)), "sub"),
    "subject is a lone surrogate": (
        lambda idp: forged(idp, HEAD, json.dumps(idp.claims(sub="\ud800")).encode()),
        "sub",
    ),
    "payload is a list": (lambda idp: forged(idp, HEAD, b"[1]"), "well-formed"),
    "payload is not JSON": (lambda idp: forged(idp, HEAD, b"{"), "well-formed"),
    "payload is deep": (lambda idp: forged(idp, HEAD, b"[" * 9000), "well-formed"),
    "header is a list": (lambda _: f"{encoded(b'[1]')}.e30.e30", "well-formed"),
    "header is deep": (lambda _: f"{encoded(b'[' * 5000)}.e30.e30", "well-formed"),
    "parts are not Base64": (lambda _: "a.b.c", "well-formed"),
    "huge": (lambda idp: idp.token(more="x" * 13_000), "longer than 16384"),
    "encrypted": (lambda _: "a.b.c.d.e", "well-formed"),
}


@pytest.mark.parametrize("kind", BAD)
async def test_a_bad_token_is_refused_with_the_check_that_failed(
    service: Service, idp: Provider, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    make, check = BAD[kind]
    token = make(idp)

    detail = await assert_refused(service, f"Bearer {token}")

    assert check in detail
    assert token not in caplog.text
    assert idp.requests.total() <= 1
    assert (await viewer(service, idp.token()))["name"] == "ada"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)
PARAMETERS = st.sampled_from(
    ["alg", "kid", "typ", "cty", "crit", "b64", "jwk", "jku", "x5c", "x5u", "zip", "enc"]
)
CLAIMS = st.sampled_from(["iss", "aud", "exp", "nbf", "iat", "jti", "sub", "scope", "name"])


async def test_whatever_a_token_holds_it_is_accepted_or_refused(
    settings: Settings, idp: Provider
) -> None:
    keys = ProviderKeys(idp.settings(), httpx2.AsyncClient())
    verifier = TokenVerifier(keys.http, {idp.origin: keys})
    async with verifier:
        await verifier.verify(idp.token(), idp.clock())

        @hypothesis_settings(max_examples=300, database=None)
        @given(st.dictionaries(PARAMETERS, VALUES), st.dictionaries(CLAIMS, VALUES))
        def check(header: JSON, claims: JSON) -> None:
            token = forged(idp, HEAD | header, idp.claims() | claims)
            with suppress(Unauthenticated, StopIteration):
                # Nothing is fetched for a known key, so one step carries it to its end.
                verifier.verify(token, idp.clock()).send(None)

        check()


async def test_a_token_ends_at_its_expiry_and_the_leeway(settings: Settings, idp: Provider) -> None:
    async with start(accepting(settings, idp.settings(leeway_seconds=30)), idp.clock) as service:
        token = idp.token(exp=seconds(idp.clock()) + 60, nbf=seconds(idp.clock()) + 30)
        await viewer(service, token)
        idp.clock.advance(seconds=89)
        await viewer(service, token)

        idp.clock.advance(seconds=1)

        assert "expired" in await assert_refused(service, f"Bearer {token}")


async def test_an_expiry_beyond_all_times_is_accepted(service: Service, idp: Provider) -> None:
    for exp in (10**15, 10**400, 1e300):
        await viewer(service, forged(idp, HEAD, idp.claims(exp=exp, aud=["x", AUDIENCE])))


async def test_the_tokens_that_are_remembered_are_bounded(
    idp: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "_KNOWN_SIZE", 2)
    keys = ProviderKeys(idp.settings(), httpx2.AsyncClient())
    async with TokenVerifier(keys.http, {idp.origin: keys}) as verifier:
        first, *others = [idp.token(sub=f"{number}") for number in range(3)]
        known = [await verifier.verify(token, idp.clock()) for token in (first, *others)]

        again = [await verifier.verify(token, idp.clock()) for token in (*others, first)]

    assert [id(one) for one in again[:2]] == [id(one) for one in known[1:]]
    assert again[2] is not known[0]


async def test_a_token_is_neither_stored_nor_logged(
    service: Service, idp: Provider, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    token = idp.token()

    await client_of(service, token).create_ticket()

    stored = b"".join(file.read_bytes() for file in service.file.parent.glob("*.db*"))
    for part in token.split("."):
        assert part not in caplog.text
        assert part.encode() not in stored


# The settings

GOOD = {"issuer": "https://id.test", "audience": "x"}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("{", "it is not valid JSON"),
        ("{}", "valid tuple"),
        ([{}], ".0.issuer"),
        ([GOOD | {"issuer": "id.test"}], ".0.issuer"),
        ([GOOD | {"issuer": "http://id.test"}], "https://"),
        ([GOOD | {"issuer": "https://me@id.test"}], "without a user"),
        ([GOOD | {"jwks_url": "file:///keys"}], ".0.jwks_url"),
        ([GOOD | {"audience": []}], ".0.audience"),
        ([GOOD | {"leeway_seconds": 301}], ".0.leeway_seconds"),
        ([GOOD | {"scopes": {"agent": ["write"]}}], "activity:write"),
        ([GOOD | {"secret": "x"}], ".0.secret"),
        ([GOOD, GOOD], "one issuer twice"),
    ],
)
def test_a_wrong_setting_is_named(
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    value: Any,
    message: str,
) -> None:
    text = value if isinstance(value, str) else json.dumps(value)
    monkeypatch.setenv("TICKET_ACTIVITY_DATABASE_URL", settings.database_url)
    monkeypatch.setenv("TICKET_ACTIVITY_IDENTITY_PROVIDERS", text)

    assert main(["serve"]) == 1

    error = capsys.readouterr().err
    assert error.startswith("ticket-activity: TICKET_ACTIVITY_IDENTITY_PROVIDERS")
    assert message in error
    assert error.count("\n") == 1
