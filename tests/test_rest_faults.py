"""What is nobody's mistake: a full queue, a fault behind the doors. And the OpenAPI document."""

import asyncio
import re
from collections.abc import Iterator
from typing import Any

import pytest

from app.rest import ACTIVITY_PATH
from app.settings import Settings
from tests.support.service import JSON, UPDATE, Client, Service, start
from tests.test_rest import NINE_FIELDS, assert_problem

INTERNALS = ["ticket_activity", "sqlite", "SELECT", "Error", "Traceback", ".py"]


async def given_a_fault(service: Service, author: Client) -> JSON:
    """An entry whose table is then lost."""
    entry = await author.create_activity(await author.create_ticket())
    await service.execute("DROP TABLE ticket_activity")
    return entry


@pytest.mark.parametrize("method", ["PUT", "GET"])
async def test_a_fault_is_500_with_nothing_internal(service: Service, method: str) -> None:
    author = await service.client()
    entry = await given_a_fault(service, author)

    if method == "PUT":
        response = await author.put(entry["ticketId"], entry["id"], {"message": "x"})
    else:
        response = await author.get(entry["ticketId"], entry["id"])

    assert assert_problem(response, 500, "INTERNAL") == "Internal error"
    assert not [name for name in INTERNALS if name in response.text.replace("Server Error", "")]


async def test_a_fault_is_masked_in_graphql(service: Service) -> None:
    author = await service.client()
    entry = await given_a_fault(service, author)
    input_ = {"ticketId": entry["ticketId"], "activityId": entry["id"], "message": "x"}

    response = await author.request(
        "POST", "/graphql", json={"query": UPDATE, "variables": {"input": input_}}
    )

    [error] = response.json()["errors"]
    assert (error["extensions"]["code"], error["path"]) == ("INTERNAL", ["updateTicketActivity"])
    assert not [name for name in INTERNALS if name in response.text]


async def test_a_full_queue_is_503_with_retry_after(settings: Settings) -> None:
    narrow = settings.model_copy(update={"write_queue_size": 1})
    async with start(narrow) as service:
        author = await service.client()
        entry = await author.create_activity(await author.create_ticket())

        async with service.write_lock():  # nobody else writes meanwhile
            puts = [
                asyncio.create_task(author.put(entry["ticketId"], entry["id"], {"message": "x"}))
                for _ in range(8)
            ]
            await asyncio.wait(puts, return_when=asyncio.FIRST_COMPLETED)
        responses = await asyncio.gather(*puts)

    busy = [response for response in responses if response.status_code != 200]
    assert 0 < len(busy) < len(responses)
    for response in busy:
        assert_problem(response, 503, "BUSY")
        assert response.headers["Retry-After"] == "1"


# OpenAPI


@pytest.fixture
async def openapi(service: Service) -> JSON:
    response = await service.http.get("/openapi.json")
    assert response.headers["Content-Type"] == "application/json"
    document: JSON = response.json()
    return document


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        node = list(node.values())
    if isinstance(node, list):
        for child in node:
            yield from references(child)


@pytest.mark.any_engine
async def test_openapi_has_the_shape_of_3_1(openapi: JSON) -> None:
    operations = openapi["paths"][ACTIVITY_PATH]

    assert openapi["openapi"].startswith("3.1.")
    assert openapi["info"]["title"]
    assert openapi["info"]["version"]
    assert set(operations) == {"parameters", "put", "get", "head"}
    assert [parameter["name"] for parameter in operations["parameters"]] == [
        "ticketId",
        "activityId",
    ]
    assert all(parameter["required"] for parameter in operations["parameters"])
    assert openapi["security"] == [{name: []} for name in openapi["components"]["securitySchemes"]]


@pytest.mark.any_engine
async def test_openapi_documents_every_status(openapi: JSON) -> None:
    operations = openapi["paths"][ACTIVITY_PATH]

    assert set(operations["put"]["responses"]) == {
        *("200", "401", "403", "404", "408", "409", "412", "413", "414"),
        *("415", "422", "429", "431", "500", "503"),
    }
    assert (
        set(operations["get"]["responses"])
        == set(operations["head"]["responses"])
        == {"200", "304", "401", "403", "404", "412", "414", "422", "429", "431", "500", "503"}
    )


@pytest.mark.any_engine
async def test_openapi_describes_the_nine_fields(openapi: JSON) -> None:
    activity = openapi["components"]["schemas"]["TicketActivity"]

    assert set(activity["properties"]) == NINE_FIELDS
    assert activity["additionalProperties"] is False
    assert activity["required"] == ["id", "ticketId", "activityType", "isPrivate", "createdAt"]
    assert activity["properties"]["activityType"]["enum"] == [
        "comment",
        "view",
        "field_change",
        "document_upload",
        "ticket_created",
        "merged_into",
        "merged_from",
    ]


@pytest.mark.any_engine
async def test_openapi_refers_to_what_it_holds(openapi: JSON) -> None:
    found = list(references(openapi))

    assert found
    for reference in found:
        node = openapi
        for name in reference.removeprefix("#/").split("/"):
            node = node[name]
        assert node


@pytest.mark.parametrize("name", ["If-Match", "If-None-Match"])
@pytest.mark.parametrize(
    "value",
    [
        *("*", "", ",", '"2"', 'W/"2"', '"1","2"', '"1" , W/"2"', ',"x",\t,', '"2",', '""'),
        *("2", '"2', '"1" "2"', '*, "2"', "*, *", 'w/"2"', '"2 "', "W/2", '"\\""'),
    ],
)
@pytest.mark.any_engine
async def test_openapi_says_which_preconditions_are_read(
    service: Service, openapi: JSON, name: str, value: str
) -> None:
    author = await service.client()
    entry = await author.create_activity(await author.create_ticket())
    operation = openapi["paths"][ACTIVITY_PATH]["put"]
    [parameter] = [each for each in operation["parameters"] if each["name"] == name]

    response = await author.put(entry["ticketId"], entry["id"], {}, **{name: value})

    is_documented = re.search(parameter["schema"]["pattern"], value) is not None
    assert is_documented == (response.status_code != 422)


@pytest.mark.parametrize("value", ["a\0b", "\0", "a\n", "", "\x01"])
@pytest.mark.any_engine
async def test_openapi_says_that_messages_hold_no_nul(
    service: Service, openapi: JSON, value: str
) -> None:
    author = await service.client()
    entry = await author.create_activity(await author.create_ticket())
    update = openapi["components"]["schemas"]["TicketActivityUpdate"]
    pattern = update["properties"]["message"]["pattern"]

    response = await author.put(entry["ticketId"], entry["id"], {"message": value})

    assert (re.search(pattern, value) is not None) == (response.status_code == 200)
