"""Requests with an idempotency key: one effect, and one answer byte for byte, on both doors."""

import asyncio
import json
import signal
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest
from sqlalchemy import Engine, event, insert
from sqlmodel import Session, select

from app.auth import Scope
from app.demo import PRINTER
from app.models import IdempotencyKey
from app.settings import Settings
from app.store import rows
from tests.support.identity import provider, rsa_key
from tests.support.process import serve
from tests.support.service import (
    ACTIVITY_FIELDS,
    CREATE_ACTIVITY,
    JSON,
    UPDATE,
    Client,
    Clock,
    Service,
    activity_url,
    start,
)
from tests.test_identity_tokens import accepting, client_of
from tests.test_rest import assert_problem

TWICE = f"""
mutation Twice($one: CreateTicketActivityInput!, $two: CreateTicketActivityInput!) {{
  one: createTicketActivity(input: $one) {{ ticketActivity {{ ...activityFields }} }}
  two: createTicketActivity(input: $two) {{
    ticketActivity {{ id ticket {{ activities {{ totalCount }} }} }}
  }}
}}
{ACTIVITY_FIELDS}"""


@pytest.fixture
async def entry(author: Client) -> JSON:
    return await author.create_activity(await author.create_ticket(), message="0")


async def put(client: Client, entry: JSON, key: str, body: Any, **more: str) -> httpx2.Response:
    headers = {"Idempotency-Key": key} | more
    return await client.put(entry["ticketId"], entry["id"], body, **headers)


async def post(client: Client, key: str, query: str, **variables: Any) -> httpx2.Response:
    return await post_for("application/json", client, key, query, **variables)


async def post_for(
    accept: str, client: Client, key: str, query: str, **variables: Any
) -> httpx2.Response:
    return await client.request(
        "POST",
        "/graphql",
        json={"query": query, "variables": variables},
        headers={"Idempotency-Key": key, "Accept": accept},
    )


def comment(entry: JSON, message: str = "new") -> JSON:
    return {"ticketId": entry["ticketId"], "activityType": "COMMENT", "message": message}


async def messages(service: Service, entry: JSON) -> list[str | None]:
    """Return the message of every change of the ticket but its creation."""
    return [change[3] for change in (await service.history(entry["ticketId"]))[1:]]


def assert_reused(response: httpx2.Response) -> None:
    assert response.status_code == 422
    document = response.json()
    code = document["code"] if "code" in document else document["errors"][0]["extensions"]["code"]
    assert code == "IDEMPOTENCY_KEY_REUSED"
    assert "data" not in document


def assert_equal(answers: list[httpx2.Response]) -> None:
    assert len({(answer.status_code, answer.content) for answer in answers}) == 1
    for name in ("ETag", "Content-Type", "Cache-Control"):
        assert len({answer.headers.get(name) for answer in answers}) == 1


def keys(session: Session) -> Sequence[IdempotencyKey]:
    return session.exec(select(IdempotencyKey)).all()


async def lose_answers(service: Service, last_step: int = 9) -> None:
    """Leave in the database what a crash leaves after a step, before the answer is kept."""

    def lose(session: Session) -> None:
        for row in keys(session):
            row.status = row.headers = row.body = None
            row.verdicts = {
                number: verdict
                for number, verdict in row.verdicts.items()
                if int(number) <= last_step
            }

    await service.database.write(lose)


# The same again


async def test_a_put_again_is_answered_as_before_whatever_has_happened_since(
    service: Service, author: Client, entry: JSON
) -> None:
    body = {"message": "1", "metadata": {"n": 1}}
    first = await put(author, entry, "k", body, **{"If-Match": '"1"'})
    await author.put(entry["ticketId"], entry["id"], {"message": "2"})

    again = await put(author, entry, "k", body, **{"If-Match": '"1"'})

    assert first.status_code == 200
    assert_equal([first, again])
    assert again.headers["ETag"] == '"2"'
    assert await messages(service, entry) == ["0", "1", "2"]


async def test_a_mutation_again_is_answered_as_before(
    service: Service, author: Client, entry: JSON
) -> None:
    first = await post(author, "k", CREATE_ACTIVITY, input=comment(entry))
    created = first.json()["data"]["createTicketActivity"]["ticketActivity"]
    await author.put(entry["ticketId"], created["id"], {"message": "changed"})

    again = await post(author, "k", CREATE_ACTIVITY, input=comment(entry))

    assert first.status_code == 200
    assert_equal([first, again])
    assert await messages(service, entry) == ["0", "new", "changed"]


async def test_a_key_covers_all_mutations_of_a_request(
    service: Service, author: Client, entry: JSON
) -> None:
    variables = {"one": comment(entry, "1"), "two": comment(entry, "2")}

    answers = [await post(author, "k", TWICE, **variables) for _ in range(3)]

    assert_equal(answers)
    counts = answers[0].json()["data"]["two"]["ticketActivity"]["ticket"]["activities"]
    assert counts == {"totalCount": 4}
    assert await messages(service, entry) == ["0", "1", "2"]


BULK = """
mutation Bulk($input: CreateTicketActivitiesInput!) {
  createTicketActivities(input: $input) {
    results { ticketActivity { id message } userErrors { code path } }
    userErrors { code }
  }
}
"""


async def test_a_key_covers_all_items_of_a_bulk_mutation(
    service: Service, author: Client, entry: JSON
) -> None:
    items = [comment(entry, "1"), comment(entry, "\0"), comment(entry, "2")]
    items += [comment(entry | {"ticketId": str(uuid4())}, "3")]

    first = await post(author, "k", BULK, input={"items": items})
    again = await post(author, "k", BULK, input={"items": items})
    await lose_answers(service, last_step=9)
    after_crash = await post(author, "k", BULK, input={"items": items})
    await lose_answers(service, last_step=1)
    await post(author, "k", BULK, input={"items": items})

    results = first.json()["data"]["createTicketActivities"]["results"]
    assert [result["ticketActivity"] is not None for result in results] == [1, 0, 1, 0]
    assert_equal([first, again, after_crash])
    assert await messages(service, entry) == ["0", "1", "2", "2"]


async def test_the_order_of_members_does_not_matter(
    service: Service, author: Client, entry: JSON
) -> None:
    answers = [
        await put(author, entry, "k", {"message": "1", "isPrivate": False}),
        await put(author, entry, "k", {"isPrivate": False, "message": "1"}),
    ]

    assert_equal(answers)


async def test_over_server_sent_events_the_answer_is_the_same_too(
    service: Service, author: Client, entry: JSON
) -> None:
    plain = await post(author, "k", CREATE_ACTIVITY, input=comment(entry))

    stream = await post_for("text/event-stream", author, "k", CREATE_ACTIVITY, input=comment(entry))

    [data] = [line for line in stream.text.splitlines() if line.startswith("data: {")]
    assert data.removeprefix("data: ") == plain.text
    assert "event: complete" in stream.text
    assert await messages(service, entry) == ["0", "new"]


@pytest.mark.parametrize("kind", ["put", "mutation"])
async def test_ten_at_once_have_one_effect_and_one_answer(
    service: Service, author: Client, entry: JSON, kind: str
) -> None:
    answers = await asyncio.gather(*(send(kind, author, entry) for _ in range(10)))

    assert answers[0].status_code == 200
    assert_equal(answers)
    assert len(await messages(service, entry)) == (2 if kind == "put" else 3)


async def send(kind: str, client: Client, entry: JSON) -> httpx2.Response:
    if kind == "put":
        return await put(client, entry, "k", {"message": "1"})
    return await post(client, "k", TWICE, one=comment(entry, "1"), two=comment(entry, "2"))


@pytest.fixture
async def other_process(settings: Settings, service: Service) -> AsyncIterator[Service]:
    """Another service on the same database, with a writer of its own."""
    async with start(settings, service.clock) as other:
        yield other


@pytest.mark.parametrize("kind", ["put", "mutation"])
async def test_ten_at_once_in_two_processes_have_one_effect_and_one_answer(
    service: Service, other_process: Service, author: Client, entry: JSON, kind: str
) -> None:
    clients = [author, Client(other_process.http, author.actor_id, author.token)] * 5

    answers = await asyncio.gather(*(send(kind, client, entry) for client in clients))

    assert answers[0].status_code == 200
    assert_equal(answers)
    assert len(await messages(service, entry)) == (2 if kind == "put" else 3)


# After a crash


async def test_after_a_crash_before_the_answer_was_kept_there_is_one_effect(
    service: Service, author: Client, entry: JSON
) -> None:
    variables = {"one": comment(entry, "1"), "two": comment(entry, "2")}
    lost = await post(author, "k", TWICE, **variables)
    await lose_answers(service)

    answers = await asyncio.gather(*(post(author, "k", TWICE, **variables) for _ in range(10)))

    assert_equal([lost, *answers])
    assert await messages(service, entry) == ["0", "1", "2"]


async def test_after_a_crash_between_two_mutations_only_the_second_is_carried_out(
    service: Service, author: Client, entry: JSON
) -> None:
    variables = {"one": comment(entry, "1"), "two": comment(entry, "2")}
    await post(author, "k", TWICE, **variables)
    await lose_answers(service, last_step=1)

    again = (await post(author, "k", TWICE, **variables)).json()["data"]

    assert await messages(service, entry) == ["0", "1", "2", "2"]
    assert again["one"]["ticketActivity"]["message"] == "1"


async def test_after_a_crash_a_step_shows_what_it_made_not_what_came_later(
    service: Service, author: Client, entry: JSON
) -> None:
    input_ = {"ticketId": entry["ticketId"], "activityId": entry["id"], "message": "1"}
    first = await post(author, "k", UPDATE, input=input_)
    await author.put(entry["ticketId"], entry["id"], {"message": "2", "isPrivate": True})
    await lose_answers(service)

    again = await post(author, "k", UPDATE, input=input_)

    assert_equal([first, again])


async def test_what_was_sent_before_a_kill_has_one_effect_when_it_is_sent_again(
    tmp_path: Path,
) -> None:
    sent: dict[str, JSON] = {}
    answers: dict[str, bytes] = {}
    enough = asyncio.Event()

    async def write(http: httpx2.AsyncClient, name: str) -> None:
        for number in range(10_000):
            key = f"{name}-{number}"
            sent[key] = {
                field: {"ticketId": str(PRINTER), "activityType": "COMMENT", "message": text}
                for field, text in (("one", f"{key} one"), ("two", f"{key} two"))
            }
            try:
                answers[key] = (await send_twice(http, key)).content
            except httpx2.HTTPError:
                return
            if number == 10:
                enough.set()

    async def send_twice(http: httpx2.AsyncClient, key: str) -> httpx2.Response:
        body = {"query": TWICE, "variables": sent[key]}
        response = await http.post("/graphql", json=body, headers={"Idempotency-Key": key})
        assert response.status_code == 200
        return response

    with serve(tmp_path / "demo.db") as process:
        token = {"Authorization": f"Bearer {process.token}"}
        async with (
            httpx2.AsyncClient(base_url=process.origin, headers=token, timeout=30) as http,
            asyncio.TaskGroup() as writers,
        ):
            for name in "abcdefgh":
                writers.create_task(write(http, name))
            await enough.wait()
            assert process.end(signal.SIGKILL) == -signal.SIGKILL

    with serve(tmp_path / "demo.db") as process:
        async with httpx2.AsyncClient(base_url=process.origin, headers=token, timeout=30) as http:
            again = {key: (await send_twice(http, key)).content for key in sent}

    assert len(answers) < len(sent)
    assert {key: again[key] for key in answers} == answers
    with closing(sqlite3.connect(tmp_path / "demo.db")) as database:
        found = database.execute("SELECT message FROM ticket_activity").fetchall()
    written = Counter(message for (message,) in found)
    assert {written[each["message"]] for one in sent.values() for each in one.values()} == {1}


# Other requests under the key


async def test_another_request_under_the_key_is_refused(
    service: Service, author: Client, entry: JSON
) -> None:
    other = await author.create_activity(entry["ticketId"], message="other")
    await put(author, entry, "k", {"message": "1"})
    await post(author, "g", UPDATE, input=update_of(entry, "2"))

    for response in (
        await put(author, entry, "k", {"message": "x"}),
        await put(author, entry, "k", {"message": "1", "ignored": 1}),
        await put(author, entry, "k", {"message": "1"}, **{"If-Match": '"1"'}),
        await put(author, other, "k", {"message": "1"}),
        await put_allowing_merged(author, entry, "k", {"message": "1"}),
        await put(author, entry, "g", {"message": "2"}),
        await post(author, "k", UPDATE, input=update_of(entry, "1")),
        await post(author, "g", UPDATE, input=update_of(entry, "x")),
        await post(author, "g", UPDATE + " ", input=update_of(entry, "2")),
    ):
        assert_reused(response)

    assert await messages(service, entry) == ["0", "other", "1", "2"]


async def put_allowing_merged(client: Client, entry: JSON, key: str, body: JSON) -> httpx2.Response:
    url = activity_url(entry["ticketId"], entry["id"]) + "?allowMerged=true"
    return await client.request("PUT", url, json=body, headers={"Idempotency-Key": key})


def update_of(entry: JSON, message: str) -> JSON:
    return {"ticketId": entry["ticketId"], "activityId": entry["id"], "message": message}


async def test_of_two_requests_at_once_under_a_key_one_is_refused(
    service: Service, author: Client, entry: JSON
) -> None:
    answers = await asyncio.gather(
        *(put(author, entry, "k", {"message": f"{number}"}) for number in range(1, 6))
    )

    assert sorted(answer.status_code for answer in answers) == [200, 422, 422, 422, 422]
    assert len(await messages(service, entry)) == 2


async def test_keys_of_two_tokens_are_two_keys(
    service: Service, author: Client, entry: JSON
) -> None:
    other = await service.client(actor_id=author.actor_id)

    await put(author, entry, "k", {"message": "1"})
    await put(other, entry, "k", {"message": "2"})

    assert await messages(service, entry) == ["0", "1", "2"]


async def test_a_token_that_may_see_less_does_not_get_the_answer(settings: Settings) -> None:
    """Tokens of an identity provider share their keys, as each lives for minutes only."""
    async with (
        start(settings) as plain,
        provider(plain.clock) as idp,
        start(accepting(settings, idp.settings()), idp.clock) as service,
    ):
        ada = client_of(service, idp.token())
        entry = await ada.create_activity(await ada.create_ticket(), message="0")
        fresh = client_of(service, idp.token(rsa_key("one"), jti="another"))
        less = client_of(service, idp.token(scope="activity:read"))

        first = await put(ada, entry, "k", {"message": "1"})

        assert_equal([first, await put(fresh, entry, "k", {"message": "1"})])
        assert_reused(await put(less, entry, "k", {"message": "1"}))


# Errors


async def test_an_expected_error_is_an_answer_like_any_other(
    service: Service, author: Client, entry: JSON
) -> None:
    missing = entry | {"id": str(uuid4())}
    stale = {"If-Match": '"7"'}
    guarded = update_of(entry, "1") | {"expectedVersion": 7}
    first = [
        await put(author, entry, "a", {"message": "1"}, **stale),
        await put(author, missing, "b", {"message": "1"}),
        await post(author, "c", UPDATE, input=guarded),
    ]
    await author.put(entry["ticketId"], entry["id"], {"message": "2"})

    again = [
        await put(author, entry, "a", {"message": "1"}, **stale),
        await put(author, missing, "b", {"message": "1"}),
        await post(author, "c", UPDATE, input=guarded),
    ]

    for one, other in zip(first, again, strict=True):
        assert_equal([one, other])
    assert [answer.status_code for answer in again] == [412, 404, 200]
    assert again[0].headers["ETag"] == '"1"'
    payload = again[2].json()["data"]["updateTicketActivity"]
    assert payload["userErrors"][0]["code"] == "VERSION_CONFLICT"
    assert payload["ticketActivity"]["message"] == "0"


async def test_an_expected_error_stays_after_a_crash(
    service: Service, author: Client, entry: JSON
) -> None:
    guarded = update_of(entry, "1") | {"expectedVersion": 2}
    denied = await service.client(Scope.READ)
    first = [
        await post(author, "c", UPDATE, input=guarded),
        await post(denied, "d", UPDATE, input=update_of(entry, "1")),
    ]
    await author.put(entry["ticketId"], entry["id"], {"message": "2"})
    await lose_answers(service)

    again = [
        await post(author, "c", UPDATE, input=guarded),
        await post(denied, "d", UPDATE, input=update_of(entry, "1")),
    ]

    for one, other in zip(first, again, strict=True):
        assert_equal([one, other])
    assert await messages(service, entry) == ["0", "2"]


async def test_a_request_that_was_not_carried_out_leaves_its_key_free(
    service: Service, author: Client, entry: JSON
) -> None:
    refused = [
        await author.request("PUT", url(entry), content=b"{", headers=json_with("k")),
        await author.request("PUT", url(entry), content=b"{}", headers={"Idempotency-Key": "k"}),
        await put(author, entry, "k", {"message": "x" * 65_537}),
        await put(author, entry, "k", {"message": "1"}, Authorization="Bearer x"),
        await post(author, "k", "mutation {"),
        await post(author, "k", UPDATE, input={}),
    ]

    accepted = await put(author, entry, "k", {"message": "1"})

    assert [answer.status_code for answer in refused] == [422, 415, 422, 401, 200, 200]
    assert accepted.status_code == 200
    assert await messages(service, entry) == ["0", "1"]


def url(entry: JSON) -> str:
    return activity_url(entry["ticketId"], entry["id"])


def json_with(key: str) -> dict[str, str]:
    return {"Idempotency-Key": key, "Content-Type": "application/json"}


async def test_an_answer_with_a_failed_part_is_not_kept_but_its_effect_is(
    service: Service, author: Client, entry: JSON
) -> None:
    query = CREATE_ACTIVITY.replace(
        "ticketActivity {", "ticketActivity { revisions(first: 1000) { totalCount }", 1
    )

    answers = [await post(author, "k", query, input=comment(entry)) for _ in range(2)]

    assert all("errors" in answer.json() for answer in answers)
    assert await messages(service, entry) == ["0", "new"]


@pytest.mark.parametrize("key", ["", " ", "a b", "x" * 256, "é", "a\tb"])
async def test_a_malformed_key_is_refused(
    service: Service, author: Client, entry: JSON, key: str
) -> None:
    header = {b"Idempotency-Key": key.encode("latin-1"), b"Content-Type": b"application/json"}
    headers = {**header, b"Authorization": f"Bearer {author.token}".encode()}
    body = json.dumps({"query": CREATE_ACTIVITY, "variables": {"input": comment(entry)}})

    rest = await service.http.put(url(entry), content=b'{"message": "1"}', headers=headers)
    graphql = await service.http.post("/graphql", content=body, headers=headers)

    detail = assert_problem(rest, 422, "INVALID_INPUT")
    assert "1 to 255 visible ASCII characters" in detail
    assert graphql.status_code == 400
    assert graphql.json()["errors"][0]["message"] == detail
    assert await messages(service, entry) == ["0"]


async def test_two_keys_are_refused(service: Service, author: Client, entry: JSON) -> None:
    headers = [("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
    headers += [("Authorization", f"Bearer {author.token}")]

    response = await service.http.put(url(entry), json={"message": "1"}, headers=headers)

    assert_problem(response, 422, "INVALID_INPUT")


async def test_reads_take_no_key(service: Service, author: Client, entry: JSON) -> None:
    key = {"Idempotency-Key": "k"}
    assert (await author.get(entry["ticketId"], entry["id"], **key)).status_code == 200
    assert "errors" not in (await post(author, "k", "{ viewer { id } }")).json()

    assert (await put(author, entry, "k", {"message": "1"})).status_code == 200


# How long, how many, how large


async def sweep(service: Service) -> None:
    await service.app.state.timeline.sweeper.sweep()


async def test_keys_are_removed_after_a_day(service: Service, author: Client, entry: JSON) -> None:
    for number in range(3):
        await put(author, entry, f"{number}", {"message": f"{number}"})
    service.clock.advance(hours=23, minutes=59)
    await sweep(service)
    await put(author, entry, "0", {"message": "0"})
    assert len(await messages(service, entry)) == 3

    service.clock.advance(minutes=1)
    await sweep(service)

    await put(author, entry, "0", {"message": "0"})
    assert await messages(service, entry) == ["0", "1", "2", "0"]


async def test_a_token_with_too_many_keys_may_only_repeat_itself(settings: Settings) -> None:
    async with start(settings.model_copy(update={"max_idempotency_keys_per_token": 2})) as service:
        author, other = await service.client(), await service.client()
        entry = await author.create_activity(await author.create_ticket(), message="0")
        for key in "ab":
            await put(author, entry, key, {"message": key})
        await sweep(service)

        refused = [
            await put(author, entry, "c", {"message": "c"}),
            await post(author, "c", UPDATE, input=update_of(entry, "c")),
        ]
        repeated = await put(author, entry, "a", {"message": "a"})
        await lose_answers(service)
        answered_anew = await put(author, entry, "a", {"message": "a"})
        without = await author.put(entry["ticketId"], entry["id"], {"message": "d"})
        others = await put(other, entry, "a", {"message": "e"})

        assert [answer.status_code for answer in refused] == [429, 429]
        assert refused[0].json()["code"] == "TOO_MANY_IDEMPOTENCY_KEYS"
        assert "2 idempotency keys within 24 hours" in refused[0].json()["detail"]
        assert repeated.json()["message"] == "a"
        assert_equal([repeated, answered_anew])
        assert without.status_code == 200
        assert others.status_code == 403
        assert await messages(service, entry) == ["0", "a", "b", "d"]


async def test_an_answer_that_is_too_large_is_not_kept_but_its_effect_is(
    settings: Settings,
) -> None:
    async with start(settings.model_copy(update={"max_idempotent_answer_bytes": 10})) as service:
        author = await service.client()
        entry = await author.create_activity(await author.create_ticket(), message="0")

        answers = [await send(kind, author, entry) for kind in ("put", "put")]

        assert_equal(answers)
        assert await messages(service, entry) == ["0", "1"]


# What is redacted

REDACT = """
mutation Redact($input: RedactTicketActivityInput!) {
  redactTicketActivity(input: $input) { userErrors { code } }
}
"""


async def test_a_redaction_reaches_the_answers_that_are_kept(
    service: Service, author: Client, entry: JSON
) -> None:
    moderator = await service.client(*Scope)
    sends: list[Callable[[], Awaitable[httpx2.Response]]] = [
        lambda: put(author, entry, "a", {"message": "swordfish"}),
        lambda: post(author, "b", UPDATE, input=update_of(entry, "swordfish 2")),
    ]
    for one in sends:
        assert "swordfish" in (await one()).text

    redacted = {"ticketId": entry["ticketId"], "activityId": entry["id"], "reason": "asked"}
    assert await moderator.mutate(REDACT, **redacted) == {"userErrors": []}

    for one in sends:
        again = await one()
        assert again.status_code == 200
        assert "swordfish" not in again.text
    assert len(await service.history(entry["ticketId"])) == 5
    assert not [row.body for row in await service.database.read(keys) if row.body]


async def test_a_repeat_tells_nothing_of_a_redaction_to_who_sees_the_entry_no_more(
    service: Service, author: Client, entry: JSON
) -> None:
    query = """
    mutation Update($input: UpdateTicketActivityInput!) {
      updateTicketActivity(input: $input) {
        ticketActivity { redaction { version } revisions { nodes { version isRedacted } } }
        userErrors { code }
      }
    }
    """
    colleague = await service.client(Scope.READ, Scope.WRITE, Scope.MODERATE)
    boss = await service.client(*Scope)
    before = await post(colleague, "k", query, input=update_of(entry, "1"))
    await author.put(entry["ticketId"], entry["id"], {"isPrivate": True})
    redacted = {"ticketId": entry["ticketId"], "activityId": entry["id"], "reason": "asked"}
    assert await boss.mutate(REDACT, **redacted) == {"userErrors": []}

    again = await post(colleague, "k", query, input=update_of(entry, "1"))

    assert again.json() == before.json()


def kept_answers(service: Service, count: int) -> list[JSON]:
    """Return rows of keys whose answers hold a secret."""
    row = {"owner": "tok_x", "actor_id": uuid4(), "fingerprint": b"", "verdicts": {}}
    row |= {"created_at": service.clock.now, "is_forgotten": False}
    row |= {"status": 200, "headers": {}, "body": b"swordfish"}
    return [row | {"key": str(uuid4())} for _ in range(count)]


@contextmanager
def on_forgetting(act: Callable[[Any, int], None]) -> Iterator[None]:
    """Call a function with the connection and the count after each removal of answers."""

    def note(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("UPDATE idempotency_key") and "is_forgotten=" in statement:
            act(connection, cursor.rowcount)

    event.listen(Engine, "after_cursor_execute", note)
    try:
        yield
    finally:
        event.remove(Engine, "after_cursor_execute", note)


async def test_no_unit_of_work_removes_more_answers_than_others_can_wait_for(
    service: Service, author: Client, entry: JSON
) -> None:
    table, removed = rows.IDEMPOTENCY_KEY, []
    await service.database.write(
        lambda session: session.connection().execute(insert(table), kept_answers(service, 450))
    )
    moderator = await service.client(*Scope)
    redacted = {"ticketId": entry["ticketId"], "activityId": entry["id"], "reason": "asked"}

    with on_forgetting(lambda _connection, count: removed.append(count)):
        assert await moderator.mutate(REDACT, **redacted) == {"userErrors": []}

    assert sum(removed) == 450
    assert max(removed) <= 200
    assert not [row.body for row in await service.database.read(keys) if row.body]


async def test_a_redaction_ends_where_keys_come_as_quickly_as_answers_are_removed(
    service: Service, author: Client, entry: JSON
) -> None:
    table, removed = rows.IDEMPOTENCY_KEY, []

    def come(connection: Any, count: int) -> None:
        removed.append(count)
        if len(removed) < 20:
            connection.execute(insert(table), kept_answers(service, 200))

    await service.database.write(
        lambda session: session.connection().execute(insert(table), kept_answers(service, 200))
    )
    moderator = await service.client(*Scope)
    redacted = {"ticketId": entry["ticketId"], "activityId": entry["id"], "reason": "asked"}

    with on_forgetting(come):
        assert await moderator.mutate(REDACT, **redacted) == {"userErrors": []}

    assert removed == [200] * 4


async def test_who_may_not_redact_removes_no_answers(
    service: Service, author: Client, entry: JSON
) -> None:
    first = await put(author, entry, "k", {"message": "1"})
    redacted = {"ticketId": entry["ticketId"], "activityId": entry["id"], "reason": "asked"}

    [error] = (await author.mutate(REDACT, **redacted))["userErrors"]

    assert error["code"] == "FORBIDDEN"
    assert [row.body for row in await service.database.read(keys)] == [first.content]


class TickingClock(Clock):
    """Goes on by a millisecond each time it is read."""

    def __call__(self) -> datetime:
        self.advance(milliseconds=1)
        return self.now


async def test_a_redaction_reaches_the_answer_to_the_creation(settings: Settings) -> None:
    """Its key was claimed a moment before the entry was created."""
    async with start(settings, TickingClock()) as service:
        moderator = await service.client(*Scope)
        new = {"ticketId": await moderator.create_ticket()}
        created = await post(moderator, "k", CREATE_ACTIVITY, input=comment(new, "swordfish"))
        entry = created.json()["data"]["createTicketActivity"]["ticketActivity"]

        redacted = {"ticketId": entry["ticketId"], "activityId": entry["id"], "reason": "asked"}
        assert await moderator.mutate(REDACT, **redacted) == {"userErrors": []}

        again = await post(moderator, "k", CREATE_ACTIVITY, input=comment(new, "swordfish"))
        assert again.status_code == 200
        assert "swordfish" not in again.text
        assert not [row.body for row in await service.database.read(keys) if row.body]
