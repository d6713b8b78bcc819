"""The service answers alike with its operations compiled and interpreted, byte for byte.

Generated queries, and every query that the tests send, go to two services on one database.
"""

import ast
import asyncio
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random
from typing import Any

import pytest
from graphql import (
    GraphQLError,
    OperationDefinitionNode,
    OperationType,
    parse,
    type_from_ast,
    validate,
)
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from app.auth import Scope
from app.graphql.schema import schema
from app.settings import Settings
from tests.support.operations import Generator
from tests.support.service import Client, start

pytestmark = pytest.mark.any_engine

CORE = schema._schema
IDS = [f"0190a3f0-0000-7000-8000-00000000000{number}" for number in range(8)]
SAMPLES: dict[str, list[Any]] = {
    "String": ["", "printer", "dmVyc2lvbiAx"],
    "ID": IDS,
    "UUID": IDS,
    "Int": [1, 2, 50, 101, -1],
    "Boolean": [True, False],
    "DateTime": ["2026-11-23T15:07:05Z", "2030-01-01T00:00:00+02:00"],
    "JSONObject": [{}, {"a": [1, None]}],
}
GENERATED = settings(
    max_examples=100,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
    database=None,
    phases=[Phase.generate],
)
CASES = 4


class Services:
    """Two services on one database, one client of each."""

    def __init__(self, runner: asyncio.Runner) -> None:
        self.runner = runner
        self.stack = AsyncExitStack()
        self.seen: Counter[str] = Counter()

    async def open(self, blank: Settings) -> None:
        compiling = await self.stack.enter_async_context(start(blank))
        interpreting = await self.stack.enter_async_context(
            start(blank.model_copy(update={"interpreted_first": 10**9}))
        )
        author = await compiling.client(*Scope)
        for ticket in IDS[:2]:
            await author.create_ticket(id=ticket, message="A printer")
        for number, entry in enumerate(IDS[2:6]):
            text = {"message": f"printer {number}", "metadata": {"number": number}}
            private = number == 3
            await author.create_activity(IDS[0], id=entry, isPrivate=private, **text)
        reader = await compiling.client(Scope.READ)
        stranger = await compiling.client(Scope.WRITE)
        self.clients = [
            (client, Client(interpreting.http, client.actor_id, client.token))
            for client in (author, reader, stranger)
        ]

    def compare(self, random: Random, text: str, variables: dict[str, Any]) -> None:
        compiled, interpreted = random.choice(self.clients)
        self.runner.run(self._compare(compiled, interpreted, text, variables))

    async def _compare(
        self, compiled: Client, interpreted: Client, text: str, variables: dict[str, Any]
    ) -> None:
        body = {"query": text, "variables": variables}
        options = {"json": body, "headers": {"X-Request-ID": "0" * 16}}
        one = await compiled.request("POST", "/graphql", **options)
        other = await interpreted.request("POST", "/graphql", **options)
        assert one.status_code == other.status_code
        assert without_seals(one.text) == without_seals(other.text)
        self.seen["cases"] += 1
        self.seen["with errors"] += "errors" in one.json()
        self.seen["with data"] += bool(one.json().get("data"))


def without_seals(text: str) -> str:
    """Put one word for each cursor of a feed, which is sealed differently each time."""
    return re.sub(r'"[\w-]{40,}=*"', '"sealed"', text, flags=re.ASCII)


@pytest.fixture(scope="module")
def services(blank: Settings) -> Iterator[Services]:
    with asyncio.Runner() as runner:
        services = Services(runner)
        runner.run(services.open(blank))
        yield services
        runner.run(services.stack.aclose())


def test_generated_queries_are_answered_alike(services: Services) -> None:
    services.seen.clear()

    @given(seed=st.integers(0, 2**64))
    @GENERATED
    def compare(seed: int) -> None:
        random = Random(seed)
        generator = Generator(CORE, SAMPLES, random)
        text = generator.operation("query", CORE.query_type)  # type: ignore[arg-type]
        for _ in range(CASES):
            variables = generator.variables(wrong=random.choice((0, 0, 0.1)))
            note(f"{text}\n{variables}")
            services.compare(random, text, variables)

    compare()

    assert services.seen["cases"] >= 300
    assert services.seen["with errors"] > 100
    assert services.seen["with data"] > 100


def test_the_queries_of_the_tests_are_answered_alike(services: Services) -> None:
    services.seen.clear()
    random = Random(7)
    for text, operation in queries_of_the_tests():
        generator = Generator(CORE, SAMPLES, random)
        for _ in range(CASES):
            variables = {
                definition.variable.name.value: generator.json(type_from_ast(CORE, definition.type))
                for definition in operation.variable_definitions or ()
            }
            services.compare(random, text, variables)

    assert services.seen["cases"] > 100
    assert services.seen["with data"] > 50


def queries_of_the_tests() -> list[tuple[str, OperationDefinitionNode]]:
    texts = {
        node.value
        for file in Path(__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    found = []
    for text in sorted(texts):
        try:
            document = parse(text)
        except GraphQLError:
            continue
        [operation, *_] = document.definitions
        if not isinstance(operation, OperationDefinitionNode) or validate(CORE, document):
            continue
        if operation.operation is OperationType.QUERY:
            found.append((text, operation))
    return found
