"""Decimals in metadata come back as the number that was sent, or are refused, by every way in."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from decimal import Decimal
from typing import Any

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from app.settings import Settings
from tests.support.service import JSON, Client, Service, activity_url, start

UPDATE = """
mutation Update($input: UpdateTicketActivityInput!) {
  updateTicketActivity(input: $input) { ticketActivity { metadata } userErrors { code path } }
}
"""
LITERAL = """
mutation {{ updateTicketActivity(
  input: {{ ticketId: "{ticketId}", activityId: "{id}", {field}: {{ a: [{number}] }} }}
) {{ ticketActivity {{ metadata }} userErrors {{ code path }} }} }}
"""

NUMBERS = st.from_regex(
    r"\A-?(0|[1-9][0-9]{0,25})(\.[0-9]{1,25}([eE][+-]?[0-9]{1,3})?|[eE][+-]?[0-9]{1,3})\Z"
) | st.floats(allow_nan=False, allow_infinity=False).map(repr)

REFUSED = (422, "INVALID_INPUT", ["metadata"])

Answer = tuple[int, str | None, Any]


@pytest.fixture(scope="module")
def door(blank: Settings) -> Iterator[tuple[BlockingPortal, Client, JSON]]:
    """A service with an entry, whose event loop runs beside the tests."""
    with ExitStack() as stack:
        portal = stack.enter_context(start_blocking_portal())
        service: Service = stack.enter_context(portal.wrap_async_context_manager(start(blank)))
        client = portal.call(service.client)
        ticket_id = portal.call(client.create_ticket)
        yield portal, client, portal.call(client.create_activity, ticket_id)


def exact(text: str) -> Any:
    return json.loads(text, parse_float=Decimal, parse_int=Decimal)


async def by_put(client: Client, entry: JSON, number: str) -> Answer:
    response = await client.request(
        "PUT",
        activity_url(entry["ticketId"], entry["id"]),
        content=f'{{"ignored": 1e-400, "metadata": {{"a": [{number}]}}}}',
        headers={"Content-Type": "application/json"},
    )
    document = exact(response.text)
    if response.status_code == 200:
        return 200, None, document["metadata"]["a"][0]
    return response.status_code, document["code"], document["path"]


async def by_graphql(client: Client, body: str, field: str) -> Answer:
    response = await client.request(
        "POST", "/graphql", content=body, headers={"Content-Type": "application/json"}
    )
    payload = exact(response.text)["data"]["updateTicketActivity"]
    if not payload["userErrors"]:
        return 200, None, payload["ticketActivity"]["metadata"]["a"][0]
    [error] = payload["userErrors"]
    assert error["path"] == ["input", field]
    return 422, error["code"], ["metadata"]


async def by_variable(client: Client, entry: JSON, number: str, field: str) -> Answer:
    ids = f'"ticketId": "{entry["ticketId"]}", "activityId": "{entry["id"]}"'
    variables = f'{{"input": {{{ids}, "{field}": {{"a": [{number}]}}}}}}'
    body = f'{{"query": {json.dumps(UPDATE)}, "variables": {variables}}}'
    return await by_graphql(client, body, field)


async def by_literal(client: Client, entry: JSON, number: str, field: str) -> Answer:
    body = json.dumps({"query": LITERAL.format(**entry, number=number, field=field)})
    return await by_graphql(client, body, field)


@given(number=NUMBERS)
@settings(max_examples=200, suppress_health_check=list(HealthCheck), derandomize=True)
@example("1e-400")
@example("-1e-400")
@example("1e400")
@example("0.1")
@example("5e-324")
@example("1.7976931348623157E+308")
@example("0.30000000000000004")
@example("0.1000000000000000055511151231257827")
@example("123456789012345678.5")
@example("1.00000000000000000000")
@example("-0.0")
def test_a_decimal_comes_back_as_the_same_number_or_is_refused(
    door: tuple[BlockingPortal, Client, JSON], number: str
) -> None:
    portal, client, entry = door
    is_kept = Decimal(repr(float(number))) == Decimal(number)

    answers = [
        portal.call(by_put, client, entry, number),
        *(
            portal.call(way, client, entry, number, field)
            for way in (by_variable, by_literal)
            for field in ("metadata", "metadataPatch")
        ),
    ]

    assert set(map(repr, answers)) == {repr(answers[0])}
    assert answers[0] == ((200, None, Decimal(number)) if is_kept else REFUSED)


async def test_the_error_says_which_number_and_what_would_become_of_it(service: Service) -> None:
    author = await service.client()
    ticket_id = await author.create_ticket()
    entry = await author.create_activity(ticket_id)

    response = await author.request(
        "PUT",
        activity_url(ticket_id, entry["id"]),
        content='{"metadata": {"prices": [1.5, {"net": 0.12345678901234567890}]}}',
        headers={"Content-Type": "application/json"},
    )

    assert response.status_code == 422
    assert response.json()["detail"] == (
        "metadata.prices.1.net is a number that a 64-bit float cannot hold: it would become "
        "0.12345678901234568."
    )


@pytest.mark.parametrize("variables", [{}, {"given": 1}, {"given": None}], ids=str)
async def test_a_literal_leaves_out_members_whose_variable_is_not_given(
    service: Service, variables: JSON
) -> None:
    author = await service.client()
    ticket_id = await author.create_ticket()
    mutation = """
    mutation Create($ticketId: ID!, $given: Int) {
      createTicketActivity(input: {
        ticketId: $ticketId, activityType: COMMENT,
        metadata: { a: $given, list: [$given], object: { b: $given, kept: true }, e: NAME }
      }) { ticketActivity { metadata } userErrors { code } }
    }
    """

    document = await author.graphql(mutation, ticketId=ticket_id, **variables)

    given_ = variables.get("given")
    assert document["data"]["createTicketActivity"]["ticketActivity"]["metadata"] == {
        **({"a": given_} if variables else {}),
        "list": [given_],
        "object": {**({"b": given_} if variables else {}), "kept": True},
        "e": "NAME",
    }


ID = "019320A4-0000-7000-8000-00000000FFFF"

TYPED = """
mutation Create($ticketId: ID!, %s) {
  createTicketActivity(input: {
    ticketId: $ticketId, activityType: COMMENT, metadata: { a: $v, b: [$v] }
  }) { ticketActivity { metadata } userErrors { code } }
}
"""


@pytest.mark.parametrize(
    ("type_", "value", "kept"),
    [
        ("UUID", ID, ID.lower()),
        ("ID", ID, ID),
        ("DateTime", "2026-11-23T16:07:05+01:00", "2026-11-23T15:07:05.000Z"),
        ("ActivityType", "VIEW", "VIEW"),
        ("[UUID!]", [ID], [ID.lower()]),
        ("JSONObject", {"b": [1.5, None]}, {"b": [1.5, None]}),
    ],
)
async def test_a_literal_holds_variables_of_any_type_as_the_schema_writes_them(
    service: Service, type_: str, value: Any, kept: Any
) -> None:
    author = await service.client()
    ticket_id = await author.create_ticket()

    document = await author.graphql(TYPED % f"$v: {type_}", ticketId=ticket_id, v=value)

    payload = document["data"]["createTicketActivity"]
    assert payload["ticketActivity"]["metadata"] == {"a": kept, "b": [kept]}


async def test_a_literal_refuses_a_variable_of_an_input_type(service: Service) -> None:
    author = await service.client()
    ticket_id = await author.create_ticket()
    variables = {"ticketId": ticket_id, "v": {"actorId": ID}}

    document = await author.graphql(TYPED % "$v: TicketActivityFilter", **variables)

    payload = document["data"]["createTicketActivity"]
    assert payload == {"ticketActivity": None, "userErrors": [{"code": "INVALID_INPUT"}]}


@pytest.mark.parametrize("digits", [19, 25, 5000])
async def test_a_literal_integer_beyond_64_bits_is_refused(service: Service, digits: int) -> None:
    author = await service.client()
    ticket_id = await author.create_ticket()
    entry = await author.create_activity(ticket_id)
    query = LITERAL.format(**entry, number="9" * digits, field="metadata")

    document = await author.graphql(query)

    assert document["data"]["updateTicketActivity"]["userErrors"] == [
        {"code": "INVALID_INPUT", "path": ["input", "metadata"]}
    ]
