"""Automatic persisted queries and trusted documents."""

import json
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from httpx2 import Response

from app.cli import main
from app.settings import Settings
from tests.support.service import JSON, Client, Service, start

pytestmark = pytest.mark.any_engine

QUERY = "{ viewer { name } }"
OTHER = "query Other { viewer { actorId } }"
NAMED = {"data": {"viewer": {"name": "test"}}}


def hash_of(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def persisted(text: str, **more: Any) -> JSON:
    return {"extensions": {"persistedQuery": {"version": 1, "sha256Hash": hash_of(text)}} | more}


async def post(client: Client, body: JSON) -> Response:
    return await client.request("POST", "/graphql", json=body)


async def code_of(client: Client, body: JSON) -> str:
    [error] = (await post(client, body)).json()["errors"]
    return str(error["extensions"]["code"])


# Automatic persisted queries


async def test_a_hash_is_unknown_until_its_query_was_sent(service: Service) -> None:
    client = await service.client()

    unknown = await post(client, persisted(QUERY))
    sent = await post(client, persisted(QUERY) | {"query": QUERY})
    known = await post(client, persisted(QUERY))

    assert unknown.status_code == 200
    assert unknown.json() == {
        "errors": [
            {
                "message": "PersistedQueryNotFound",
                "extensions": {"code": "PERSISTED_QUERY_NOT_FOUND"},
            }
        ]
    }
    assert sent.json() == known.json() == NAMED


async def test_a_hash_can_be_sent_by_get(service: Service) -> None:
    client = await service.client()
    await post(client, persisted(QUERY) | {"query": QUERY})
    parameters = {"extensions": json.dumps(persisted(QUERY)["extensions"])}

    response = await client.request(
        "GET", "/graphql", params=parameters, headers={"Accept": "application/json"}
    )

    assert response.json() == NAMED


async def test_a_query_is_not_kept_under_another_hash(service: Service) -> None:
    client = await service.client()

    half_a_character = json.dumps(persisted(OTHER) | {"query": "\ud800"})

    refused = await client.request(
        "POST",
        "/graphql",
        content=half_a_character,
        headers={"Content-Type": "application/json"},
    )

    assert refused.json()["errors"][0]["extensions"]["code"] == "INVALID_INPUT"
    assert await code_of(client, persisted(OTHER) | {"query": QUERY}) == "INVALID_INPUT"
    assert await code_of(client, persisted(OTHER)) == "PERSISTED_QUERY_NOT_FOUND"


@pytest.mark.parametrize(
    "extension",
    [{}, 1, [], {"version": 2, "sha256Hash": "a"}, {"version": 1}, {"version": 1, "sha256Hash": 1}],
)
async def test_a_malformed_extension_is_invalid_input(service: Service, extension: Any) -> None:
    body = {"query": QUERY, "extensions": {"persistedQuery": extension}}

    assert await code_of(await service.client(), body) == "INVALID_INPUT"


async def test_the_queries_used_last_are_kept(settings: Settings) -> None:
    texts = [f"query Q{n} {QUERY}" for n in range(3)]
    async with start(settings.model_copy(update={"persisted_query_cache_size": 2})) as service:
        client = await service.client()
        for text in (texts[0], texts[1], texts[0], texts[2]):
            await post(client, persisted(text) | {"query": text})

        assert (await post(client, persisted(texts[0]))).json() == NAMED
        assert await code_of(client, persisted(texts[1])) == "PERSISTED_QUERY_NOT_FOUND"
        assert (await post(client, persisted(texts[2]))).json() == NAMED


async def test_persisted_queries_can_be_switched_off(settings: Settings) -> None:
    async with start(settings.model_copy(update={"persisted_query_cache_size": 0})) as service:
        client = await service.client()

        assert (await post(client, persisted(QUERY) | {"query": QUERY})).json() == NAMED
        assert await code_of(client, persisted(QUERY)) == "PERSISTED_QUERY_NOT_SUPPORTED"


async def test_a_mutation_by_hash_needs_post(service: Service) -> None:
    mutation = "mutation { createTicket(input: {}) { userErrors { code } } }"
    client = await service.client()
    assert "errors" not in (await post(client, persisted(mutation) | {"query": mutation})).json()
    parameters = {"extensions": json.dumps(persisted(mutation)["extensions"])}

    response = await client.request(
        "GET", "/graphql", params=parameters, headers={"Accept": "application/json"}
    )

    assert response.status_code == 405


# Trusted documents

RELAY = {hash_of(QUERY): QUERY, "by-name": OTHER}
APOLLO = {
    "format": "apollo-persisted-query-manifest",
    "version": 1,
    "operations": [
        {"id": hash_of(QUERY), "body": QUERY, "name": "", "type": "query"},
        {"id": "by-name", "body": OTHER, "name": "Other", "type": "query"},
    ],
}


@pytest.fixture(params=[RELAY, APOLLO], ids=["relay", "apollo"])
def manifest(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    file = tmp_path / "manifest.json"
    file.write_text(json.dumps(request.param))
    return file


@pytest.fixture
async def only(settings: Settings, manifest: Path) -> AsyncIterator[Client]:
    """A client of a service that executes nothing but the manifest."""
    trusting = settings.model_copy(
        update={"trusted_documents": manifest, "trusted_documents_only": True}
    )
    async with start(trusting) as service:
        yield await service.client()


@pytest.mark.parametrize(
    "body",
    [
        {"documentId": hash_of(QUERY)},
        {"documentId": f"sha256:{hash_of(QUERY)}"},
        {"doc_id": hash_of(QUERY)},
        {"id": hash_of(QUERY)},
        persisted(QUERY),
        {"query": QUERY},
        persisted(QUERY) | {"query": QUERY},
    ],
)
async def test_a_trusted_document_is_executed_however_it_is_named(only: Client, body: JSON) -> None:
    assert (await post(only, body)).json() == NAMED


@pytest.mark.parametrize(
    "body",
    [
        {"query": "{ viewer { name scopes } }"},
        {"query": f"{QUERY} "},
        {"documentId": "unknown"},
        persisted("{ __typename }"),
        persisted("{ __typename }") | {"query": "{ __typename }"},
    ],
)
async def test_nothing_else_is_executed(only: Client, body: JSON) -> None:
    response = await post(only, body)

    assert response.status_code == 400
    [error] = response.json()["errors"]
    assert error["extensions"] == {"code": "DOCUMENT_NOT_TRUSTED"}


async def test_without_only_other_documents_are_executed_too(
    settings: Settings, manifest: Path
) -> None:
    async with start(settings.model_copy(update={"trusted_documents": manifest})) as service:
        client = await service.client()

        assert (await post(client, {"documentId": "by-name"})).status_code == 200
        assert (await post(client, {"query": QUERY})).json() == NAMED
        assert await code_of(client, {"documentId": "x"}) == "DOCUMENT_NOT_TRUSTED"


@pytest.mark.parametrize("key", ["{hash}", "sha256:{hash}", "by-name", "5d41402abc4b2a76b9719d91"])
async def test_a_trusted_document_is_found_by_its_hash_whatever_its_id_is(
    settings: Settings, tmp_path: Path, key: str
) -> None:
    file = tmp_path / "manifest.json"
    file.write_text(json.dumps({key.format(hash=hash_of(QUERY)): QUERY}))
    async with start(settings.model_copy(update={"trusted_documents": file})) as service:
        client = await service.client()

        for name in (hash_of(QUERY), f"sha256:{hash_of(QUERY)}", key.format(hash=hash_of(QUERY))):
            assert (await post(client, {"documentId": name})).json() == NAMED
        assert (await post(client, persisted(QUERY))).json() == NAMED


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "No such file"),
        (b"{", "Expecting property name"),
        (b"\xff", "utf-8"),
        (b"[]", "not a JSON object"),
        (b'{"a": 1}', "not a JSON object"),
        (b'{"operations": [{"id": "a"}]}', "not a JSON object"),
        (b'{"a": "{ nothing }"}', "document a: Cannot query field 'nothing'"),
        (b'{"a": "{"}', "document a: Syntax Error"),
    ],
)
def test_a_manifest_that_cannot_be_used_ends_the_start_with_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    content: bytes | None,
    said: str,
) -> None:
    file = tmp_path / "manifest.json"
    if content is not None:
        file.write_bytes(content)
    monkeypatch.setenv("TICKET_ACTIVITY_DATABASE_URL", f"sqlite+aiosqlite:///{tmp_path / 'new.db'}")
    monkeypatch.setenv("TICKET_ACTIVITY_TRUSTED_DOCUMENTS", str(file))

    assert main(["serve"]) == 1

    [line] = capsys.readouterr().err.splitlines()
    assert str(file) in line
    assert said in line
    assert not (tmp_path / "new.db").exists()


def test_only_needs_a_manifest(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TICKET_ACTIVITY_TRUSTED_DOCUMENTS_ONLY", "true")

    assert main(["serve"]) == 1

    assert "TICKET_ACTIVITY_TRUSTED_DOCUMENTS" in capsys.readouterr().err
