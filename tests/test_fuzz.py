"""Generated requests: whatever comes in, the answer is one that the descriptions name."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import schemathesis
from anyio.from_thread import BlockingPortal, start_blocking_portal
from graphql import NameNode, ObjectFieldNode, StringValueNode
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis_graphql import from_schema, nodes
from schemathesis.specs.openapi.checks import positive_data_acceptance

from app.demo import demo_id
from app.settings import Settings
from tests.support.process import ROOT, Process, serve
from tests.support.service import Client, Service, start

pytestmark = pytest.mark.any_engine

GENERATED = settings(
    max_examples=1000,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
)
# To generate one document takes 50 ms: the schema is large.
GENERATED_DOCUMENTS = settings(GENERATED, max_examples=400)


# REST, by the service's own description of it


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    with serve(tmp_path_factory.mktemp("fuzz") / "demo.db") as running:
        yield running


@pytest.fixture(scope="module")
def described(process: Process) -> Any:
    return schemathesis.openapi.from_url(f"{process.origin}/openapi.json")


@given(data=st.data(), is_there=st.booleans())
@GENERATED
def test_every_answer_of_the_rest_door_is_described(
    described: Any, process: Process, data: st.DataObject, *, is_there: bool
) -> None:
    operations = [result.ok() for result in described.get_all_operations()]
    operation = data.draw(st.sampled_from(operations))
    case = data.draw(operation.as_strategy())
    if case.path_parameters and is_there:
        case.path_parameters = {"ticketId": str(demo_id(1)), "activityId": str(demo_id(101))}
    case.call_and_validate(
        headers={"Authorization": f"Bearer {process.token}"},
        # A schema cannot say all that is refused: NUL, integers beyond 64 bits, sizes in bytes.
        excluded_checks=[positive_data_acceptance],
    )


# GraphQL, by its schema

IDS = [str(demo_id(number)) for number in (1, 2, 3)]
SDL = (ROOT / "schema.graphql").read_text()


def text_node(value: str) -> StringValueNode:
    return nodes.String(value)


SCALARS = {
    "UUID": (st.sampled_from(IDS) | st.uuids().map(str) | st.text()).map(text_node),
    "DateTime": (
        st.datetimes().map(lambda at: f"{at.isoformat(timespec='milliseconds')}Z") | st.text()
    ).map(text_node),
    "JSONObject": st.dictionaries(st.from_regex(r"\A[a-z]+\Z"), st.integers() | st.text()).map(
        lambda members: nodes.Object(
            [
                ObjectFieldNode(
                    name=NameNode(value=name),
                    value=nodes.Int(value) if isinstance(value, int) else nodes.String(value),
                )
                for name, value in members.items()
            ]
        )
    ),
}
DOCUMENTS = from_schema(SDL, custom_scalars=SCALARS)


@pytest.fixture(scope="module")
def door(blank: Settings) -> Iterator[tuple[BlockingPortal, Client]]:
    """A service with a ticket of a known id, whose event loop runs beside the tests."""
    with ExitStack() as stack:
        portal = stack.enter_context(start_blocking_portal())
        service: Service = stack.enter_context(portal.wrap_async_context_manager(start(blank)))
        client = portal.call(service.client)
        portal.call(lambda: client.create_ticket(id=IDS[0]))
        yield portal, client


@given(document=DOCUMENTS)
@GENERATED_DOCUMENTS
def test_every_document_of_the_schema_is_answered(
    door: tuple[BlockingPortal, Client], document: str
) -> None:
    portal, client = door

    async def send() -> Any:
        return await client.request(
            "POST",
            "/graphql",
            json={"query": document},
            headers={"Accept": "application/graphql-response+json"},
        )

    response = portal.call(send)

    assert response.status_code in {200, 294, 400}, response.text
    answer = response.json()
    assert ("data" in answer) is (response.status_code != 400)
    assert ("errors" in answer) is (response.status_code != 200)
    for error in answer.get("errors", []):
        assert error["extensions"]["code"] in {
            "INVALID_INPUT",
            "GRAPHQL_PARSE_FAILED",
            "GRAPHQL_VALIDATION_FAILED",
            "QUERY_TOO_COMPLEX",
            "NOT_FOUND",
        }, error
