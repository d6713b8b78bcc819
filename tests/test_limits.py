"""Documents that are refused before anything is executed, and queries that are cancelled."""

import asyncio
import dataclasses
import time
from typing import Any

import pytest
from graphql import get_introspection_query

from app.graphql.schema import schema
from app.graphql_server.complexity import QueryLimits
from app.graphql_server.execution import Executor
from app.graphql_server.parser import Operation, select_operation
from app.settings import Settings
from tests.support.service import JSON, Client, Service, start

pytestmark = pytest.mark.any_engine

NO_TICKET = "019320a4-0000-7000-8000-00000000ffff"


def doubling(count: int) -> str:
    """A chain of fragments, each of which spreads the next one twice."""
    links = [
        f"fragment f{n} on Ticket {{ a: mergedInto {twice} b: mergedInto {twice} }}"
        for n in range(count)
        for twice in [f"{{ ...f{n + 1} }}"]
    ]
    end = f"fragment f{count} on Ticket {{ id }}"
    return " ".join([f'{{ ticket(id: "{NO_TICKET}") {{ ...f0 }} }}', *links, end])


def nested(depth: int) -> str:
    inner = "{ mergedInto " * (depth - 2) + "{ id }" + " }" * (depth - 2)
    return f'{{ ticket(id: "{NO_TICKET}") {inner} }}'


def page(arguments: str, selection: str) -> str:
    return f'{{ ticket(id: "{NO_TICKET}") {{ activities{arguments} {{ {selection} }} }} }}'


def aliases(count: int) -> str:
    return " ".join(f"a{n}: viewer {{ name }}" for n in range(count))


FRAGMENTS = " ".join(f"fragment f{n} on Viewer {{ name }}" for n in range(81))
SPREAD_WIDELY = " ".join(f"a{n}: viewer {{ ...f }}" for n in range(20))
FIELDS = f"fragment f on Viewer {{ {'name ' * 47} }}"
DIRECTIVES = "@include(if: true) " * 101


async def refusal(client: Client, query: str, **variables: Any) -> str:
    document = await client.graphql(query, **variables)
    [error] = document["errors"]
    assert error["extensions"] == {"code": "QUERY_TOO_COMPLEX"}
    assert "data" not in document
    return str(error["message"])


@pytest.mark.parametrize(
    ("query", "said"),
    [
        (nested(21), "depth is 21, the limit is 20"),
        (f"{{ {aliases(21)} }}", "root fields are 21, the limit is 20"),
        (f"{{ {aliases(101)} }}", "aliases are 101, the limit is 100"),
        (f"{{ viewer {DIRECTIVES} {{ name }} }}", "directives are 101, the limit is 100"),
        (
            f"{{ viewer {{ ...n }} }} fragment n on Viewer {DIRECTIVES} {{ name }}",
            "directives are 101, the limit is 100",
        ),
        (f"{{ viewer {{ {'name ' * 500} }} }}", "fields are 501, the limit is 500"),
        (f"{{ {SPREAD_WIDELY} }}{FIELDS}", "fields are 960, the limit is 500"),
        (f"{{ viewer {{ name }} }} {FRAGMENTS}", "fragments are 81, the limit is 80"),
        (doubling(30), "cost is"),
        (page("(first: 100)", "nodes { revisions(first: 100) { nodes { version id } } }"), "cost"),
        (
            "query Q($n: Int) "
            + page(
                "(first: $n)",
                "nodes { revisions(first: $n) { nodes { version message changedAt } } }",
            ),
            "cost",
        ),
        (nested(60), "depth is 60, the limit is 20"),
    ],
    ids=lambda value: value[:30],
)
async def test_a_document_over_a_limit_is_refused_with_that_limit(
    service: Service, query: str, said: str
) -> None:
    assert said in await refusal(await service.client(), query)


@pytest.mark.parametrize(
    "query",
    [
        f"{{ {aliases(1000)} }}",
        "{ viewer " + "@skip(if: false) " * 10_000 + "{ name } }",
        "{" * 100_000,
        doubling(150),
        "{ " + "...f " * 500 + "} fragment f on Query { viewer { name } }",
    ],
    ids=["aliases", "directives", "braces", "fragments", "spreads"],
)
async def test_what_would_take_minutes_is_refused(service: Service, query: str) -> None:
    document = await (await service.client()).graphql(query)

    assert "errors" in document
    assert "data" not in document


async def test_nesting_that_the_parser_cannot_hold_is_refused(service: Service) -> None:
    [error] = (await (await service.client()).graphql(nested(600)))["errors"]

    assert error["extensions"] == {"code": "GRAPHQL_PARSE_FAILED"}
    assert "nested too deeply" in error["message"]


async def test_a_chain_of_fragments_is_refused_however_long(service: Service) -> None:
    links = " ".join(f"fragment f{n} on Viewer {{ ... {{ ...f{n + 1} }} }}" for n in range(1, 180))
    chain = f"{{ viewer {{ ...f1 }} }} {links} fragment f180 on Viewer {{ name }}"

    document = await (await service.client()).graphql(chain)

    assert "errors" in document
    assert "data" not in document


async def test_all_excesses_are_named_at_once(service: Service) -> None:
    message = await refusal(await service.client(), f"{{ {aliases(101)} }}")

    assert "aliases" in message
    assert "root fields" in message


@pytest.mark.parametrize(
    "query",
    [
        nested(20),
        doubling(3),
        page("(first: 100)", "nodes { id revisions { nodes { version message } } } totalCount"),
        page("", "edges { cursor node { id } } pageInfo { hasNextPage }"),
        "{ nodes(ids: []) { id } }",
    ],
)
async def test_a_document_within_the_limits_is_executed(service: Service, query: str) -> None:
    document = await (await service.client()).graphql(query)

    assert "errors" not in document


@pytest.mark.parametrize(
    ("query", "cost"),
    [
        ("{ viewer { name } }", 6),
        ("{ viewer { ...n } } fragment n on Viewer { name scopes }", 7),
        ("{ nodes(ids: [1, 2, 3]) { id } }", 5 + 3),
        (page("", "nodes { id }"), 3 * 5 + 20),
        (page("(first: 5)", "nodes { id message } pageInfo { hasNextPage }"), 3 * 5 + 10 + 6),
        (page("(last: 5)", "edges { node { id } }"), 3 * 5 + 5 * 6),
        (page("(first: 5)", "totalCount"), 2 * 5 + 1 + 5),
        (page("(first: -9)", "nodes { id }"), 3 * 5 + 100),
        (
            page("(first: 5)", "...p") + " fragment p on TicketActivityConnection { nodes { id } }",
            3 * 5 + 5,
        ),
        (
            page("(first: 5)", "nodes { revisions(first: 3) { nodes { version } } }"),
            3 * 5 + 5 * (5 + 5 + 3),
        ),
    ],
)
async def test_the_cost_is_what_the_schema_says(settings: Settings, query: str, cost: int) -> None:
    exactly = settings.model_copy(update={"max_query_cost": cost})
    async with start(exactly) as service:
        document = await (await service.client()).graphql(query)
        assert "QUERY_TOO_COMPLEX" not in str(document)
    below = settings.model_copy(update={"max_query_cost": cost - 1})
    async with start(below) as service:
        assert f"cost is {cost}, the limit is {cost - 1}" in await refusal(
            await service.client(), query
        )


async def test_a_circle_of_fragments_is_an_error_of_validation(service: Service) -> None:
    circle = "{ viewer { ...a } } fragment a on Viewer { ...b } fragment b on Viewer { ...a }"

    [error] = (await (await service.client()).graphql(circle))["errors"]

    assert error["extensions"]["code"] == "GRAPHQL_VALIDATION_FAILED"


async def test_the_standard_introspection_passes(service: Service) -> None:
    query = get_introspection_query(
        specified_by_url=True,
        directive_is_repeatable=True,
        schema_description=True,
        input_value_deprecation=True,
    )

    document = await (await service.client()).graphql(query)

    assert "errors" not in document
    assert document["data"]["__schema"]["types"]


WALK = "types { fields { args { name } type { name fields { name type { name } } } } }"


@pytest.mark.parametrize(
    "query",
    [
        f"{{ __schema {{ {WALK} }} }}",
        "{ "
        + " ".join(f"a{n}: __schema {{ ...f }}" for n in range(19))
        + "} fragment f on __Schema "
        "{ types { fields { name description } } }",
        f"{{ ...f }} fragment f on Query {{ __schema {{ {WALK} }} }}",
        f"{{ ... {{ __schema {{ {WALK} }} }} }}",
        f'{{ viewer {{ name }} __type(name: "Query") {{ {"fields { type { ...t } }"} }} }} '
        "fragment t on __Type { fields { args { type { inputFields { type { name } } } } } }",
    ],
    ids=["nested", "aliased", "in a fragment", "in an inline fragment", "of one type"],
)
async def test_introspection_that_costs_more_than_the_standard_query_is_refused(
    service: Service, query: str
) -> None:
    message = await refusal(await service.client(), query)

    assert "introspection costs" in message
    assert "the limit is" in message


async def test_questions_about_the_schema_are_answered_alike_each_time(service: Service) -> None:
    client = await service.client()
    query = """
    query A { __schema { queryType { name } } }
    query B { __type(name: "Viewer") { name } }
    query C($n: String!) { __type(name: $n) { name } }
    """

    async def ask(name: str, **variables: str) -> Any:
        body = {"query": query, "operationName": name, "variables": variables}
        return (await client.request("POST", "/graphql", json=body)).json()["data"]

    answers = [[await ask("A"), await ask("B"), await ask("C", n="Ticket")] for _ in range(2)]

    assert answers[0] == answers[1]
    assert answers[0] == [
        {"__schema": {"queryType": {"name": "Query"}}},
        {"__type": {"name": "Viewer"}},
        {"__type": {"name": "Ticket"}},
    ]
    assert await ask("C", n="Query") == {"__type": {"name": "Query"}}


def test_the_settings_begin_with_the_limits_that_the_code_names() -> None:
    settings = Settings()

    for limit in dataclasses.fields(QueryLimits):
        assert getattr(settings, f"max_query_{limit.name}") == limit.default


async def first_error(settings: Settings, query: str) -> JSON:
    async with start(settings) as service:
        document = await (await service.client()).graphql(query)
        error: JSON = document["errors"][0]
        return error


async def test_introspection_can_be_switched_off(settings: Settings) -> None:
    closed = settings.model_copy(update={"introspection": False})

    error = await first_error(closed, "{ __schema { queryType { name } } }")

    assert error["extensions"]["code"] == "GRAPHQL_VALIDATION_FAILED"


async def test_typename_is_answered_without_introspection(settings: Settings) -> None:
    async with start(settings.model_copy(update={"introspection": False})) as service:
        document = await (await service.client()).graphql("{ __typename }")
        assert document == {"data": {"__typename": "Query"}}


async def test_suggestions_can_be_switched_off(settings: Settings) -> None:
    silent = settings.model_copy(update={"suggestions": False})

    assert "Did you mean" in (await first_error(settings, "{ viewr { name } }"))["message"]
    assert "Did you mean" not in (await first_error(silent, "{ viewr { name } }"))["message"]


# The deadline


async def test_a_query_that_takes_too_long_is_cancelled_and_says_so(settings: Settings) -> None:
    async with start(settings.model_copy(update={"query_deadline_seconds": 1e-6})) as service:
        client = await service.client()
        ticket_id = await client.create_ticket()  # a mutation has no deadline

        response = await client.request(
            "POST", "/graphql", json={"query": f'{{ ticket(id: "{ticket_id}") {{ id }} }}'}
        )

        [error] = response.json()["errors"]
        assert response.status_code == 503
        assert error["extensions"] == {"code": "DEADLINE_EXCEEDED"}
        assert "1e-06 seconds" in error["message"]
        assert (await client.get(ticket_id, NO_TICKET)).status_code == 404


# Lists in variables


@pytest.mark.parametrize(
    ("query", "variables", "place"),
    [
        ("query Q($v: [ID!]!) { nodes(ids: $v) { id } }", {"v": ["x"] * 101}, "$v"),
        ("query Q($v: [ID!]!) { nodes(ids: $v) { id } }", {"v": [1] * 200_000}, "$v"),
        (
            f"query Q($v: TicketActivityFilter) {page('(filter: $v)', 'totalCount')}",
            {"v": {"types": ["VIEW"] * 100_000}},
            "$v.types",
        ),
        (
            f"query Q($v: [ActivityType!]) {page('(filter: {types: $v})', 'totalCount')}",
            {"v": ["VIEW"] * 101},
            "$v",
        ),
    ],
)
async def test_a_list_in_variables_of_more_items_than_any_list_has_is_refused(
    service: Service, query: str, variables: JSON, place: str
) -> None:
    [error] = (await (await service.client()).graphql(query, **variables))["errors"]

    assert error["extensions"] == {"code": "INVALID_INPUT"}
    assert error["message"].startswith(f"{place} holds ")
    assert error["message"].endswith(" items; the limit is 100.")


async def test_an_object_in_variables_with_very_many_unknown_members_is_refused_as_a_whole(
    service: Service,
) -> None:
    client = await service.client()
    query = f"query Q($v: TicketActivityFilter) {page('(filter: $v)', 'totalCount')}"

    [error] = (await client.graphql(query, v={f"m{n}": 1 for n in range(10_000)}))["errors"]
    [few] = (await client.graphql(query, v={"m": 1}))["errors"]

    assert error["extensions"] == few["extensions"] == {"code": "INVALID_INPUT"}
    assert error["message"] == "$v has 10000 members; TicketActivityFilter has 6 fields."
    assert "Expected value of type 'TicketActivityFilter' not to include unknown" in few["message"]


async def test_a_body_may_hold_as_many_decimals_as_metadata_and_not_any_number(
    service: Service,
) -> None:
    client = await service.client()
    metadata = {"a": [1.5] * 16_000}
    assert await client.create_ticket(metadata=metadata)

    [error] = (await client.graphql("{ viewer { name } }", v=[1.5] * 20_001))["errors"]

    assert error["extensions"] == {"code": "INVALID_INPUT"}
    assert error["message"] == (
        "Request body is not accepted: it holds more than 20000 decimal numbers."
    )


async def test_the_event_loop_does_not_validate_long_documents(service: Service) -> None:
    links = " ".join(f"fragment f{n} on Viewer {{ name ...f{n + 1} }}" for n in range(79))
    query = f"{{ viewer {{ ...f0 }} }} {links} fragment f79 on Viewer {{ name }}"
    client = await service.client()
    await client.graphql("{ viewer { name } }")
    executor = Executor(schema, cache_size=1, limits=QueryLimits())

    began = time.thread_time()
    executor.parser.parse_operations(query)
    validated = time.thread_time()
    document = await client.graphql(query)
    answered = time.thread_time()

    assert document == {"data": {"viewer": {"name": "test"}}}
    assert answered - validated < (validated - began) / 2


async def test_a_document_that_many_send_at_once_is_kept_once_and_leaves_room() -> None:
    parser = Executor(schema, cache_size=10, limits=QueryLimits()).parser

    async def prepare(query: str) -> Operation:
        text = query.ljust(16_000, ",")
        operations = parser.known(text) or await parser.parse(text, lambda _: None)
        return select_operation(operations, None)

    at_once = await asyncio.gather(*(prepare("{ viewer { name } }") for _ in range(40)))
    later = [await prepare("{ viewer { scopes } }") for _ in range(2)]

    assert all(operation is at_once[0] for operation in at_once)
    assert later[0] is later[1]


async def test_lists_of_a_hundred_items_and_lists_inside_json_are_accepted(
    service: Service,
) -> None:
    client = await service.client()

    document = await client.graphql(
        "query Q($v: [ID!]!) { nodes(ids: $v) { id } }", v=[NO_TICKET] * 100
    )

    assert document == {"data": {"nodes": [None] * 100}}
    ticket_id = await client.create_ticket(metadata={"a": [1] * 101})
    assert ticket_id
