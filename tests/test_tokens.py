"""Bearer tokens through the doors: which are refused, what is recorded, what is kept secret."""

import tracemalloc
from datetime import timedelta
from pathlib import Path

import httpx2
import pytest

from app import authentication
from app.auth import IssuedToken, generate_token, parse_token
from app.settings import Settings
from app.store.database import open_database
from app.store.tokens import list_tokens
from tests.support.service import Client, Service, activity_url, start
from tests.support.statements import statements
from tests.test_rest import assert_problem

MISSING = "0190a3f0-5c1e-7b2a-9d3e-4f5a6b7c8d9f"
VIEWER = "{ viewer { actorId } }"


async def answers(service: Service, authorization: str | None) -> list[httpx2.Response]:
    """Ask both doors with a header: for an entry that there is none of, and for the viewer."""
    headers = {} if authorization is None else {"Authorization": authorization}
    return [
        await service.http.get(activity_url(MISSING, MISSING), headers=headers),
        await service.http.post("/graphql", json={"query": VIEWER}, headers=headers),
    ]


async def assert_accepted(service: Service, client: Client, scheme: str = "Bearer") -> None:
    rest, graphql = await answers(service, f"{scheme} {client.token}")
    assert_problem(rest, 404, "NOT_FOUND")
    assert graphql.json() == {"data": {"viewer": {"actorId": str(client.actor_id)}}}


async def assert_refused(service: Service, authorization: str | None) -> str:
    """Assert that both doors refuse the header in the same words; return them."""
    rest, graphql = await answers(service, authorization)
    detail = assert_problem(rest, 401, "UNAUTHENTICATED")
    assert graphql.status_code == 401
    [error] = graphql.json()["errors"]
    assert (error["message"], error["extensions"]) == (detail, {"code": "UNAUTHENTICATED"})
    assert "data" not in graphql.json()
    for response in (rest, graphql):
        assert response.headers["WWW-Authenticate"] == "Bearer"
    return detail


def token_id(client: Client) -> str:
    return parse_token(client.token).id


async def stored(service: Service, client: Client) -> IssuedToken:
    rows = await service.database.read(list_tokens)
    [row] = [row for row in rows if row.id == token_id(client)]
    return row


# Which are refused


async def test_no_token_is_refused_with_how_to_send_one(service: Service) -> None:
    assert "Authorization: Bearer <token>" in await assert_refused(service, None)


@pytest.mark.parametrize(
    "template",
    [
        "",
        "Bearer",
        "Bearer ",
        "Bearer x",
        "{token}",
        "Basic {token}",
        "Bearer{token}",
        "Bearer {token}x",
        "Bearer {token} {token}",
        "Bearer {token}, Bearer {token}",
        'Bearer "{token}"',
        "Bearer TKA_0123456789abcdef_" + "a" * 43,
        "Bearer tka_0123456789ABCDEF_" + "a" * 43,
        "Bearer tka_0123456789abcdef_" + "a" * 42,
    ],
)
async def test_a_malformed_header_is_refused_and_not_repeated(
    service: Service, template: str
) -> None:
    client = await service.client()

    detail = await assert_refused(service, template.format(token=client.token))

    assert "well-formed" in detail
    assert client.token not in detail


async def test_an_unknown_token_is_refused(service: Service) -> None:
    assert "not known" in await assert_refused(service, f"Bearer {generate_token().text}")


async def test_unknown_ids_are_remembered_for_a_moment_and_only_the_last_ones(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authentication, "_UNKNOWN_SIZE", 2)
    one, two, three = (f"Bearer {generate_token().text}" for _ in range(3))

    async def reads(authorization: str) -> int:
        with statements() as executed:
            await assert_refused(service, authorization)
        return sum("FROM access_token" in statement for statement, _ in executed)

    assert [await reads(one), await reads(one), await reads(two), await reads(two)] == [1, 0, 1, 0]
    assert await reads(three) == 1
    assert [await reads(two), await reads(three)] == [0, 0]
    assert await reads(one) == 1, "it was remembered beyond the bound"
    service.clock.advance(seconds=2)
    assert await reads(one) == 1, "it was remembered for too long"


@pytest.mark.parametrize("is_cached", [True, False])
async def test_a_wrong_secret_of_a_known_id_is_refused_as_unknown(
    service: Service, is_cached: bool
) -> None:
    client = await service.client()
    if is_cached:
        await assert_accepted(service, client)
    wrong = client.token[:21] + generate_token().secret

    assert wrong.startswith(f"tka_{token_id(client)}_")
    assert "not known" in await assert_refused(service, f"Bearer {wrong}")
    await assert_accepted(service, client)


async def test_a_token_ends_the_moment_it_expires(service: Service) -> None:
    client = await service.client(lifetime=timedelta(hours=1))

    service.clock.advance(hours=1, milliseconds=-1)
    await assert_accepted(service, client)

    service.clock.advance(milliseconds=1)
    assert "expired" in await assert_refused(service, f"Bearer {client.token}")


async def test_a_revoked_token_is_refused_within_five_seconds(service: Service) -> None:
    client, other = await service.client(), await service.client()
    await assert_accepted(service, client)

    assert await service.revoke(client)
    service.clock.advance(seconds=5)

    assert "revoked" in await assert_refused(service, f"Bearer {client.token}")
    await assert_accepted(service, other)


async def test_a_refused_token_changes_nothing(service: Service) -> None:
    author = await service.client(lifetime=timedelta(hours=1))
    entry = await author.create_activity(await author.create_ticket(), message="before")
    service.clock.advance(hours=1)

    response = await author.put(entry["ticketId"], entry["id"], {"message": "after"})

    assert_problem(response, 401, "UNAUTHENTICATED")
    assert [change[3] for change in await service.history(entry["ticketId"])] == [None, "before"]


@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "bEARER", "Bearer  "])
async def test_the_scheme_is_read_in_any_case(service: Service, scheme: str) -> None:
    await assert_accepted(service, await service.client(), scheme)


# What is recorded


async def test_a_header_may_have_spaces_but_not_any_number(service: Service) -> None:
    client = await service.client()
    await assert_accepted(service, client, "Bearer   ")

    detail = await assert_refused(service, f"Bearer {' ' * 16 * 1024}{client.token}")

    assert detail == "The Authorization header is longer than 16384 characters."


async def test_a_token_between_spaces_is_not_kept_once_for_each_number_of_them(
    service: Service,
) -> None:
    client = await service.client()
    await assert_accepted(service, client)
    tracemalloc.start()
    try:
        for number in range(100):
            headers = {"Authorization": f"Bearer {' ' * (15_000 + number)}{client.token}"}
            answer = await service.http.get(activity_url(MISSING, MISSING), headers=headers)
            assert answer.status_code == 404
        kept, _peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert kept < 1_000_000


async def test_the_last_use_is_recorded_with_a_write(service: Service) -> None:
    client = await service.client()
    assert (await stored(service, client)).last_used_at is None

    await client.create_ticket()

    assert (await stored(service, client)).last_used_at == service.clock()


async def test_the_last_use_is_recorded_to_the_minute(service: Service) -> None:
    client = await service.client()
    await client.create_ticket()
    first = service.clock()

    service.clock.advance(seconds=59)
    await client.create_ticket()
    assert (await stored(service, client)).last_used_at == first

    service.clock.advance(seconds=1)
    await client.create_ticket()
    assert (await stored(service, client)).last_used_at == service.clock()


async def test_the_last_use_of_a_reader_is_stored_before_the_service_ends(
    settings: Settings,
) -> None:
    async with start(settings) as service:
        await assert_accepted(service, await service.client())

    database = open_database(settings.database_url)
    [row] = await database.read(list_tokens)
    await database.close()
    assert row.last_used_at == service.clock()


async def test_a_refused_token_is_not_used(service: Service) -> None:
    client = await service.client(lifetime=timedelta(hours=1))
    service.clock.advance(hours=2)
    await assert_refused(service, f"Bearer {client.token}")

    await (await service.client()).create_ticket()

    assert (await stored(service, client)).last_used_at is None


# What is kept secret


def read_files(folder: Path) -> bytes:
    """Read the database with its log."""
    return b"".join(file.read_bytes() for file in folder.glob("ticket-activity.db*"))


@pytest.mark.sqlite
async def test_the_secret_is_nowhere_in_the_database(service: Service) -> None:
    client = await service.client()
    ticket_id = await client.create_ticket()
    secret = parse_token(client.token).secret

    content = read_files(service.file.parent)

    assert token_id(client).encode() in content
    assert secret.encode() not in content
    assert ticket_id


async def test_the_secret_is_not_logged(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    client = await service.client()
    secret = parse_token(client.token).secret

    await client.create_ticket()
    await assert_refused(service, f"Bearer {client.token}x")

    assert secret not in caplog.text


def test_the_secret_is_not_in_the_representation_of_a_token() -> None:
    token = generate_token()

    assert token.id in repr(token)
    assert token.secret not in f"{token!r} {token}"


def test_tokens_differ_and_match_only_their_own_hash() -> None:
    first, second = generate_token(), generate_token()

    assert first.text != second.text
    assert parse_token(first.text) == first
    assert first.matches(first.secret_hash)
    assert not first.matches(second.secret_hash)
