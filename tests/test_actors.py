"""Actors with names: where the names come from, and where they are shown."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID, uuid4

import pytest

from app.auth import Scope
from app.cli import main
from app.settings import Settings
from tests.support.identity import Provider, provider, seconds
from tests.support.service import JSON, Client, Clock, Service, start
from tests.support.statements import statements
from tests.test_delete import delete
from tests.test_idempotency import lose_answers, post
from tests.test_identity_tokens import accepting, client_of

ACTOR = "{ id name avatarUrl }"
EVERYWHERE = f"""
query Everywhere($ticketId: ID!, $activityId: ID!) {{
  ticketActivity(ticketId: $ticketId, activityId: $activityId) {{
    actor {ACTOR}
    updatedBy {ACTOR}
    revisions {{ nodes {{ changedBy {ACTOR} recordedBy {ACTOR} }} }}
    redaction {{ redactedBy {ACTOR} }}
  }}
  ticketActivityChanges(ticketId: $ticketId) {{ nodes {{ activityId changedBy {ACTOR} }} }}
}}
"""
UPSERT = f"""
mutation Upsert($input: UpsertActorsInput!) {{
  upsertActors(input: $input) {{
    actors {ACTOR}
    userErrors {{ code message path reasons }}
  }}
}}
"""
PICTURE = "https://pictures.test/ada.png"


@pytest.fixture
async def moderator(service: Service) -> Client:
    return await service.client(*Scope)


async def everywhere(client: Client, entry: JSON) -> JSON:
    document = await client.graphql(EVERYWHERE, ticketId=entry["ticketId"], activityId=entry["id"])
    assert "errors" not in document, document
    found: JSON = document["data"]
    return found


async def name(moderator: Client, *actors: JSON) -> JSON:
    return await moderator.mutate(UPSERT, actors=list(actors))


def actor(client: Client, name: str | None = None, url: str | None = None) -> JSON:
    return {"id": str(client.actor_id), "name": name, "avatarUrl": url}


async def test_an_actor_is_shown_wherever_there_is_its_id(
    author: Client, moderator: Client
) -> None:
    entry = await author.create_activity(await author.create_ticket(), message="1")
    await moderator.put(entry["ticketId"], entry["id"], {"message": "2"})
    ada, alan = actor(author, "Ada", PICTURE), actor(moderator, "Alan")

    assert await name(moderator, ada, alan) == {"actors": [ada, alan], "userErrors": []}

    found = await everywhere(author, entry)
    assert found["ticketActivity"] == {
        "actor": ada,
        "updatedBy": alan,
        "revisions": {
            "nodes": [
                {"changedBy": ada, "recordedBy": ada},
                {"changedBy": alan, "recordedBy": alan},
            ]
        },
        "redaction": None,
    }
    assert [
        change["changedBy"]
        for change in found["ticketActivityChanges"]["nodes"]
        if change["activityId"] == entry["id"]
    ] == [ada, alan]


async def test_a_name_that_is_not_known_is_null(author: Client) -> None:
    entry = await author.create_activity(await author.create_ticket())

    assert (await everywhere(author, entry))["ticketActivity"]["actor"] == actor(author)


async def test_where_no_actor_is_there_is_none(moderator: Client) -> None:
    entry = await moderator.create_activity(await moderator.create_ticket(), actorId=None)

    found = (await everywhere(moderator, entry))["ticketActivity"]
    assert (found["actor"], found["updatedBy"]) == (None, None)
    assert found["revisions"]["nodes"] == [{"changedBy": None, "recordedBy": actor(moderator)}]


async def test_who_deleted_an_entry_is_not_shown(author: Client, moderator: Client) -> None:
    entry = await author.create_activity(await author.create_ticket())
    await name(moderator, actor(author, "Ada"))
    await delete(author, entry)

    found = await everywhere(author, entry)

    changes = found["ticketActivityChanges"]["nodes"]
    assert [one["changedBy"] for one in changes if one["activityId"] == entry["id"]] == [None]


async def test_actors_of_a_page_are_read_by_one_statement(service: Service) -> None:
    moderator = await service.client(*Scope)
    ticket_id = await moderator.create_ticket()
    for _ in range(20):
        await moderator.create_activity(ticket_id, actorId=str(uuid4()))
    query = "query Q($id: ID!) { ticket(id: $id) { activities { nodes { actor { id name } } } } }"

    with statements() as seen:
        document = await moderator.graphql(query, id=ticket_id)

    nodes = document["data"]["ticket"]["activities"]["nodes"]
    assert len({node["actor"]["id"] for node in nodes}) == 20
    assert len([text for text, _ in seen if "FROM actor" in text]) == 1


# upsertActors


async def test_what_is_left_out_stays_and_null_clears(author: Client, moderator: Client) -> None:
    id_ = {"id": str(author.actor_id)}
    await name(moderator, actor(author, "Ada", PICTURE))

    answers = [
        await name(moderator, id_ | {"name": "Ada King"}),
        await name(moderator, id_ | {"avatarUrl": None}),
        await name(moderator, id_),
        await name(moderator, id_ | {"name": None}),
    ]

    assert [answer["actors"] for answer in answers] == [
        [actor(author, "Ada King", PICTURE)],
        [actor(author, "Ada King")],
        [actor(author, "Ada King")],
        [actor(author)],
    ]


@pytest.mark.parametrize(
    ("wrong", "path", "message"),
    [
        ({"name": ""}, "name", "1 to 200 printable"),
        ({"name": "  "}, "name", "1 to 200 printable"),
        ({"name": "x" * 201}, "name", "1 to 200 printable"),
        ({"name": "a\nb"}, "name", "1 to 200 printable"),
        ({"name": "a\0"}, "name", "1 to 200 printable"),
        ({"avatarUrl": "javascript:alert(1)"}, "avatarUrl", "https://"),
        ({"avatarUrl": "data:image/png;base64,x"}, "avatarUrl", "https://"),
        ({"avatarUrl": "//pictures.test/a"}, "avatarUrl", "https://"),
        ({"avatarUrl": "https://"}, "avatarUrl", "https://"),
        ({"avatarUrl": "https://[::1"}, "avatarUrl", "https://"),
        ({"avatarUrl": "https://a.test/ b"}, "avatarUrl", "https://"),
        ({"avatarUrl": "https://a.test/" + "x" * 2048}, "avatarUrl", "2048"),
    ],
)
async def test_one_wrong_actor_leaves_all_as_they_were(
    author: Client, moderator: Client, wrong: JSON, path: str, message: str
) -> None:
    payload = await name(moderator, actor(author, "Ada"), {"id": str(uuid4())} | wrong)

    assert payload["actors"] is None
    [error] = payload["userErrors"]
    assert (error["code"], error["path"]) == ("INVALID_INPUT", ["input", "actors", "1", path])
    assert message in error["message"]
    again = await name(moderator, {"id": str(author.actor_id)})
    assert again["actors"] == [actor(author)]


async def test_an_actor_twice_and_too_many_are_refused(author: Client, moderator: Client) -> None:
    twice = await name(moderator, actor(author, "Ada"), actor(author, "Alan"))
    input_ = {"actors": [{"id": str(uuid4())}] * 101}
    many = await moderator.graphql(UPSERT, input=input_)

    assert twice["userErrors"][0]["path"] == ["input", "actors", "1", "id"]
    assert many["errors"][0]["message"] == "$input.actors holds 101 items; the limit is 100."


@pytest.mark.parametrize("scopes", [[Scope.READ, Scope.WRITE], [Scope.MODERATE]], ids=str)
async def test_naming_needs_the_scopes_to_moderate_and_to_read(
    service: Service, scopes: list[Scope]
) -> None:
    client = await service.client(*scopes)

    payload = await name(client, actor(client, "Me"))

    assert payload["actors"] is None
    [error] = payload["userErrors"]
    assert (error["code"], error["reasons"]) == ("FORBIDDEN", ["MISSING_SCOPE"])


async def test_under_an_idempotency_key_actors_are_named_once(
    service: Service, author: Client, moderator: Client
) -> None:
    await post(moderator, "k", UPSERT, input={"actors": [actor(author, "Ada", PICTURE)]})
    await name(moderator, {"id": str(author.actor_id), "name": "Ada King"})
    await lose_answers(service)

    again = await post(moderator, "k", UPSERT, input={"actors": [actor(author, "Ada", PICTURE)]})

    payload = again.json()["data"]["upsertActors"]
    assert payload == {"actors": [actor(author, "Ada King", PICTURE)], "userErrors": []}


async def test_of_two_requests_at_once_that_name_actors_under_a_key_one_is_refused(
    author: Client, moderator: Client
) -> None:
    answers = await asyncio.gather(
        *(
            post(moderator, "k", UPSERT, input={"actors": [actor(author, f"{number}")]})
            for number in range(5)
        )
    )

    refused = sorted("IDEMPOTENCY_KEY_REUSED" in answer.text for answer in answers)
    assert refused == [False, True, True, True, True]


# Tokens of an identity provider


async def test_names_come_from_claims_and_change_with_them(settings: Settings) -> None:
    async with provider_and_service(settings) as (idp, service):
        ada = client_of(service, idp.token(name="Ada", picture=PICTURE))
        entry = await ada.create_activity(await ada.create_ticket())
        first = (await everywhere(ada, entry))["ticketActivity"]["actor"]

        service.clock.advance(seconds=1)
        later = client_of(service, idp.token(name="Ada King"))
        await later.create_activity(entry["ticketId"])
        second = (await everywhere(later, entry))["ticketActivity"]["actor"]

        silent = client_of(service, idp.token(picture="javascript:alert(1)"))
        await silent.create_activity(entry["ticketId"])
        third = (await everywhere(silent, entry))["ticketActivity"]["actor"]

    assert first == {"id": entry["actorId"], "name": "Ada", "avatarUrl": PICTURE}
    assert second == third == first | {"name": "Ada King"}


async def test_the_name_of_the_token_issued_last_stays(settings: Settings) -> None:
    async with provider_and_service(settings) as (idp, service):
        early = client_of(service, idp.token(name="Ada"))
        service.clock.advance(seconds=1)
        late = client_of(service, idp.token(name="Ada King"))
        same_time = client_of(service, idp.token(name="Ada Byron"))
        silent = client_of(service, idp.token(name="Nobody", iat=None))
        entry = await late.create_activity(await late.create_ticket())

        with statements() as seen:
            for client in (early, late, same_time, silent) * 3:
                await client.put(entry["ticketId"], entry["id"], {"message": "1"})
        name = (await everywhere(late, entry))["ticketActivity"]["actor"]["name"]

    assert name == "Ada King"
    assert not [text for text, _ in seen if "INTO actor" in text]


async def test_the_name_of_the_token_issued_last_stays_in_all_processes(settings: Settings) -> None:
    async with (
        provider_and_service(settings) as (idp, service),
        start(accepting(settings, idp.settings()), service.clock) as other,
    ):
        early, silent = idp.token(name="Ada"), idp.token(name="Nobody", iat=None)
        service.clock.advance(seconds=1)
        late = client_of(service, idp.token(name="Ada King"))
        entry = await late.create_activity(await late.create_ticket())

        for token in (early, silent):
            await client_of(other, token).create_activity(entry["ticketId"])
        name = (await everywhere(late, entry))["ticketActivity"]["actor"]["name"]

    assert name == "Ada King"


async def test_a_name_that_was_set_stays_until_a_token_is_issued(settings: Settings) -> None:
    async with provider_and_service(settings) as (idp, service):
        ada = client_of(service, idp.token(name="Ada"))
        entry = await ada.create_activity(await ada.create_ticket())
        service.clock.advance(seconds=1)
        await name(await service.client(*Scope), {"id": entry["actorId"], "name": "Lady Lovelace"})

        async with start(accepting(settings, idp.settings()), service.clock) as other:
            again = client_of(other, idp.token(name="Ada", iat=seconds(service.clock()) - 1))
            await again.create_activity(entry["ticketId"])
            kept = (await everywhere(again, entry))["ticketActivity"]["actor"]["name"]
            service.clock.advance(seconds=1)
            fresh = client_of(other, idp.token(name="Ada"))
            await fresh.create_activity(entry["ticketId"])
            new = (await everywhere(fresh, entry))["ticketActivity"]["actor"]["name"]

    assert (kept, new) == ("Lady Lovelace", "Ada")


@asynccontextmanager
async def provider_and_service(settings: Settings) -> AsyncIterator[tuple[Provider, Service]]:
    clock = Clock()
    async with (
        provider(clock) as idp,
        start(accepting(settings, idp.settings()), clock) as service,
    ):
        yield idp, service


# The operator


@pytest.mark.sqlite
def test_the_operator_names_an_actor(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TICKET_ACTIVITY_DATABASE_URL", settings.database_url)
    id_ = str(UUID(int=7, version=4))

    assert main(["actor", "set", id_, "--name", "Ada", "--avatar-url", PICTURE]) == 0
    assert main(["actor", "set", id_, "--name", "Ada King"]) == 0

    assert capsys.readouterr().out.splitlines()[-1] == f"{id_}  Ada King  {PICTURE}"
    for wrong, message in (
        ([], "--name, --avatar-url or both"),
        (["--name", ""], "name must be 1 to 200"),
        (["--avatar-url", "x"], "avatarUrl must be an address"),
    ):
        assert main(["actor", "set", id_, *wrong]) == 1
        assert message in capsys.readouterr().err
