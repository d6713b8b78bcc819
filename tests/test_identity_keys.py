"""The keys of an identity provider that rotates them, is slow, is away, or lies."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from websockets.exceptions import ConnectionClosed

from app.settings import Settings
from tests.support.identity import (
    DISCOVERY_PATH,
    KEYS_PATH,
    Provider,
    encoded,
    key_set,
    provider,
    rsa_key,
    seconds,
)
from tests.support.live import (
    closing,
    listening,
    over_event_stream,
    over_web_socket,
    send,
    web_socket,
)
from tests.support.service import Clock, Service, start
from tests.test_identity_tokens import accepting, client_of, viewer
from tests.test_rest import assert_problem
from tests.test_tokens import MISSING, answers, assert_refused

pytestmark = pytest.mark.any_engine


@pytest.fixture
async def idp() -> AsyncIterator[Provider]:
    async with provider(Clock()) as running:
        yield running


@pytest.fixture
async def service(idp: Provider, settings: Settings) -> AsyncIterator[Service]:
    async with start(accepting(settings, idp.settings()), idp.clock) as running:
        yield running


async def assert_unreachable(service: Service, token: str) -> None:
    """Assert that both doors ask the client to come again."""
    rest, graphql = await answers(service, f"Bearer {token}")
    assert "cannot be fetched" in assert_problem(rest, 503, "BUSY")
    assert graphql.status_code == 503
    assert graphql.json()["errors"][0]["extensions"]["code"] == "BUSY"


async def test_ten_requests_at_once_fetch_the_keys_once(service: Service, idp: Provider) -> None:
    idp.gate.clear()
    waiting = [asyncio.create_task(viewer(service, idp.token(sub=f"{n}"))) for n in range(10)]
    await idp.asked.wait()
    idp.gate.set()

    assert [found["name"] for found in await asyncio.gather(*waiting)] == list("0123456789")
    assert idp.requests == {KEYS_PATH: 1}


async def test_a_new_key_is_fetched_when_a_token_names_it(service: Service, idp: Provider) -> None:
    await viewer(service, idp.token())
    idp.publish(rsa_key("one"), rsa_key("two"))
    idp.clock.advance(seconds=5)

    assert (await viewer(service, idp.token(rsa_key("two"))))["name"] == "ada"
    assert idp.requests[KEYS_PATH] == 2


async def test_unknown_keys_make_one_fetch_in_five_seconds(service: Service, idp: Provider) -> None:
    for number in range(20):
        await assert_refused(service, f"Bearer {idp.token(rsa_key('x'), sub=f'{number}')}")
        idp.clock.advance(seconds=0.5)

    assert idp.requests[KEYS_PATH] == 2


async def test_a_clock_that_steps_back_keeps_no_new_key_out(
    service: Service, idp: Provider
) -> None:
    await viewer(service, idp.token())
    idp.publish(rsa_key("two"))

    idp.clock.advance(hours=-1)

    assert (await viewer(service, idp.token(rsa_key("two"))))["name"] == "ada"


async def test_a_withdrawn_key_is_refused_after_five_minutes(
    service: Service, idp: Provider
) -> None:
    token = idp.token()
    await viewer(service, token)
    idp.publish(rsa_key("two"))

    idp.clock.advance(minutes=4, seconds=59)
    await viewer(service, token)
    assert idp.requests[KEYS_PATH] == 1
    idp.clock.advance(seconds=1)
    await viewer(service, token)  # the keys are fetched in the background
    idp.clock.advance(seconds=5)

    assert (await viewer(service, idp.token(rsa_key("two"))))["name"] == "ada"
    assert "does not publish" in await assert_refused(service, f"Bearer {token}")


async def test_the_operator_says_when_a_withdrawn_key_is_refused(
    settings: Settings, idp: Provider
) -> None:
    own = accepting(settings, idp.settings(jwks_refresh_seconds=30))
    async with start(own, idp.clock) as service:
        token = idp.token()
        await viewer(service, token)
        idp.publish(rsa_key("two"))

        idp.clock.advance(seconds=29)
        await viewer(service, token)
        assert idp.requests[KEYS_PATH] == 1
        idp.clock.advance(seconds=1)
        await viewer(service, token)  # the keys are fetched in the background
        await viewer(service, idp.token(rsa_key("two")))

        assert "does not publish" in await assert_refused(service, f"Bearer {token}")


async def test_a_key_withdrawn_while_nobody_asked_is_refused_at_once(
    service: Service, idp: Provider
) -> None:
    token = idp.token()
    await viewer(service, token)
    idp.publish(rsa_key("two"))

    idp.clock.advance(minutes=10)

    assert "does not publish" in await assert_refused(service, f"Bearer {token}")
    assert "does not publish" in await assert_refused(service, f"Bearer {idp.token(sub='alan')}")


async def test_while_the_provider_is_away_known_keys_stay_and_nobody_else_gets_in(
    service: Service, idp: Provider
) -> None:
    await viewer(service, idp.token())
    idp.is_down = True
    idp.clock.advance(minutes=30)

    assert (await viewer(service, idp.token(sub="alan")))["name"] == "alan"
    await assert_unreachable(service, idp.token(rsa_key("two")))
    idp.clock.advance(minutes=30)
    assert (await viewer(service, idp.token(sub="grace")))["name"] == "grace"

    idp.is_down = False
    idp.publish(rsa_key("two"))
    idp.clock.advance(seconds=5)
    assert (await viewer(service, idp.token(rsa_key("two"))))["name"] == "ada"


async def test_while_the_provider_is_away_at_first_nobody_gets_in(
    service: Service, idp: Provider
) -> None:
    idp.is_down = True

    await assert_unreachable(service, idp.token())

    assert (await (await service.client()).create_ticket()) is not None


async def test_a_slow_provider_does_not_keep_known_keys_waiting(
    service: Service, idp: Provider
) -> None:
    await viewer(service, idp.token())
    idp.asked.clear()
    idp.gate.clear()
    idp.clock.advance(seconds=5)
    waiting = asyncio.create_task(answers(service, f"Bearer {idp.token(rsa_key('two'))}"))
    await idp.asked.wait()

    for number in range(3):
        assert (await viewer(service, idp.token(sub=f"{number}")))["name"] == f"{number}"

    assert not waiting.done()
    idp.gate.set()
    assert [response.status_code for response in await waiting] == [401, 401]


async def test_a_caller_who_goes_does_not_end_the_fetch(service: Service, idp: Provider) -> None:
    idp.gate.clear()
    going = asyncio.create_task(viewer(service, idp.token()))
    staying = asyncio.create_task(viewer(service, idp.token(sub="alan")))
    await idp.asked.wait()
    going.cancel()
    await asyncio.wait([going])
    idp.gate.set()

    assert (await staying)["name"] == "alan"
    assert idp.requests[KEYS_PATH] == 1


async def test_the_service_ends_while_a_fetch_is_under_way(
    idp: Provider, settings: Settings
) -> None:
    async with start(accepting(settings, idp.settings()), idp.clock) as service:
        idp.gate.clear()
        going = asyncio.create_task(viewer(service, idp.token()))
        await idp.asked.wait()
        going.cancel()


PRIVATE = {"keys": [rsa_key("one").as_dict(private=True)]}
PUBLIC = rsa_key("one").as_dict(private=False)
LIES = {
    "no JSON": b"<html>",
    "no object": b"[]",
    "no keys": b"{}",
    "keys are an object": b'{"keys": {}}',
    "an empty set": b'{"keys": []}',
    "keys are texts": b'{"keys": ["one", 1, null]}',
    "a key without kid": json.dumps({"keys": [{**PUBLIC, "kid": None}]}).encode(),
    "a private key": json.dumps(PRIVATE).encode(),
    "a secret": b'{"keys": [{"kty": "oct", "kid": "one", "k": "c2VjcmV0"}]}',
    "a key for encryption": json.dumps({"keys": [PUBLIC | {"use": "enc"}]}).encode(),
    "a key of another algorithm alone": json.dumps({"keys": [PUBLIC | {"kty": "XX"}]}).encode(),
    "a modulus of zero": json.dumps({"keys": [PUBLIC | {"n": "AA"}]}).encode(),
    "a modulus that is a number": json.dumps({"keys": [PUBLIC | {"n": 5}]}).encode(),
    "a curve that does not sign": json.dumps(
        {"keys": [{"kty": "OKP", "crv": "X25519", "kid": "one", "x": "A" * 43}]}
    ).encode(),
    "too many keys": json.dumps({"keys": [PUBLIC] * 101}).encode(),
    "too many bytes": b" " * 300_000 + key_set(rsa_key("one")),
    "a redirect": b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n",
    "an error": b"HTTP/1.1 500 Oops\r\nContent-Length: 2\r\n\r\n{}",
    "half an answer": b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{",
    "no HTTP": b"HTTP/nonsense\r\n\r\n",
    "deep JSON": b"[" * 100_000,
}


@pytest.mark.parametrize("kind", LIES)
async def test_a_provider_that_lies_lets_nobody_in(
    service: Service, idp: Provider, kind: str
) -> None:
    idp.answers["/elsewhere"] = idp.answers[KEYS_PATH]
    idp.answers[KEYS_PATH] = LIES[kind]

    await assert_unreachable(service, idp.token())

    idp.publish(rsa_key("one"))
    idp.clock.advance(seconds=5)
    await viewer(service, idp.token())
    idp.answers[KEYS_PATH] = LIES[kind]
    idp.clock.advance(minutes=11)
    await assert_unreachable(service, idp.token(rsa_key("two")))
    await viewer(service, idp.token())  # the old keys stay


async def test_weak_keys_are_ignored_beside_good_ones(service: Service, idp: Provider) -> None:
    weak = rsa.generate_private_key(65537, 1024)  # noqa: S505
    modulus = weak.public_key().public_numbers().n.to_bytes(128, "big")
    member = {"kty": "RSA", "kid": "weak", "e": "AQAB", "n": encoded(modulus)}
    idp.answers[KEYS_PATH] = json.dumps({"keys": [member, {"kty": "?"}, PUBLIC]}).encode()
    header = encoded(b'{"alg":"RS256","kid":"weak"}')
    text = f"{header}.{encoded(json.dumps(idp.claims()).encode())}"
    signature = weak.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256())

    await viewer(service, idp.token())

    refused = await assert_refused(service, f"Bearer {text}.{encoded(signature)}")
    assert "does not publish" in refused


# Discovery


def discovering(settings: Settings, idp: Provider) -> Settings:
    return accepting(settings, idp.settings(jwks_url=None))


def document(idp: Provider, **members: Any) -> bytes:
    own = {"issuer": idp.origin, "jwks_uri": idp.origin + KEYS_PATH}
    return json.dumps(own | members).encode()


async def test_the_keys_are_found_through_the_issuer(settings: Settings, idp: Provider) -> None:
    idp.answers[DISCOVERY_PATH] = document(idp)

    async with start(discovering(settings, idp), idp.clock) as service:
        assert (await viewer(service, idp.token()))["name"] == "ada"

    assert idp.requests == {DISCOVERY_PATH: 1, KEYS_PATH: 1}


@pytest.mark.parametrize(
    "members",
    [
        {"issuer": "https://other.test"},
        {"issuer": None},
        {"jwks_uri": None},
        {"jwks_uri": ["x"]},
        {"jwks_uri": "http://other.test/keys"},
        {"jwks_uri": "file:///etc/passwd"},
        {"jwks_uri": "https://[::1"},
    ],
    ids=str,
)
async def test_a_discovery_document_that_lies_lets_nobody_in(
    settings: Settings, idp: Provider, members: dict[str, Any]
) -> None:
    idp.answers[DISCOVERY_PATH] = document(idp, **members)

    async with start(discovering(settings, idp), idp.clock) as service:
        await assert_unreachable(service, idp.token())

    assert idp.requests == {DISCOVERY_PATH: 1}


# Streams


async def test_a_web_socket_is_asked_to_come_again_while_the_provider_is_away(
    service: Service, idp: Provider
) -> None:
    idp.is_down = True
    async with listening(service) as origin, web_socket(origin, None) as ws:
        token = f"Bearer {idp.token()}"
        await send(ws, type="connection_init", payload={"Authorization": token})

        code, reason = await closing(ws)

    assert code == 1012
    assert "cannot be fetched" in reason


async def test_a_bad_token_at_the_beginning_closes_a_web_socket_for_good(
    service: Service, idp: Provider
) -> None:
    async with listening(service) as origin, web_socket(origin, None) as ws:
        token = f"Bearer {idp.token(exp=seconds(idp.clock()))}"
        await send(ws, type="connection_init", payload={"Authorization": token})

        code, reason = await closing(ws)

    assert code == 4401
    assert "expired" in reason


@pytest.mark.parametrize("over", [over_web_socket, over_event_stream], ids=["ws", "sse"])
async def test_a_stream_goes_on_with_a_fresh_token_where_the_expired_one_ended(
    service: Service, idp: Provider, over: Any
) -> None:
    def token() -> str:
        return idp.token(exp=seconds(idp.clock()) + 60)

    ada = client_of(service, token())
    ticket_id = await ada.create_ticket()
    async with listening(service) as origin:
        async with over(origin, ada.token, ticket_id, None) as changes:
            await ada.create_activity(ticket_id, message="1")
            last = await anext(changes)
            idp.clock.advance(seconds=60)
            with pytest.raises((ConnectionClosed, StopAsyncIteration)) as ended:
                await asyncio.wait_for(anext(changes), 5)
        ada.token = token()
        await ada.create_activity(ticket_id, message="2")
        async with over(origin, ada.token, ticket_id, last["cursor"]) as changes:
            next_ = await anext(changes)

    if isinstance(ended.value, ConnectionClosed):
        assert ended.value.rcvd
        assert (ended.value.rcvd.code, ended.value.rcvd.reason) == (
            4403,
            "The token has expired; send a fresh one.",
        )
    assert next_["ticketActivity"]["message"] == "2"


async def test_a_provider_that_is_slow_does_not_slow_the_tokens_of_the_service(
    service: Service, idp: Provider
) -> None:
    idp.gate.clear()
    waiting = asyncio.create_task(answers(service, f"Bearer {idp.token()}"))
    await idp.asked.wait()

    author = await service.client()
    response = await author.get(MISSING, MISSING)

    assert response.status_code == 404
    assert not waiting.done()
    idp.gate.set()
    await waiting
