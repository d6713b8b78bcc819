"""What a service that records traces tells of its requests, batches and statements."""

import asyncio
import re
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from app.settings import Settings
from app.tracing import Tracing
from tests.support.live import follow, listening, receive, web_socket
from tests.support.process import ROOT, serve
from tests.support.service import CREATE_TICKET, UPDATE, Service, start

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
async def traced(settings: Settings, exporter: InMemorySpanExporter) -> AsyncIterator[Service]:
    async with start(settings, tracing=Tracing(SimpleSpanProcessor(exporter))) as service:
        yield service


def named(exporter: InMemorySpanExporter, pattern: str) -> list[ReadableSpan]:
    return [span for span in exporter.get_finished_spans() if re.fullmatch(pattern, span.name)]


def one(exporter: InMemorySpanExporter, pattern: str) -> ReadableSpan:
    [span] = named(exporter, pattern)
    return span


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def is_child(span: ReadableSpan, parent: ReadableSpan) -> bool:
    return span.parent is not None and span.parent.span_id == parent.context.span_id


async def test_a_mutation_is_a_request_an_operation_a_batch_and_its_statements(
    traced: Service, exporter: InMemorySpanExporter
) -> None:
    client = await traced.client()
    await client.create_ticket()  # looks the token up
    exporter.clear()

    await client.request(
        "POST",
        "/graphql?token=hidden",
        json={"query": CREATE_TICKET, "variables": {"input": {"message": "hidden"}}},
        headers={"traceparent": f"00-{TRACE}-{PARENT}-01", "User-Agent": "a client"},
    )

    request, operation = one(exporter, "POST /graphql"), one(exporter, "mutation")
    batch = one(exporter, "write batch")
    statements = [span for span in exporter.get_finished_spans() if is_child(span, batch)]
    assert {span.context.trace_id for span in (request, operation, batch, *statements)} == {
        int(TRACE, 16)
    }
    assert request.parent
    assert request.parent.span_id == int(PARENT, 16)
    assert request.kind is SpanKind.SERVER
    assert (
        attributes(request).items()
        >= {
            "http.request.method": "POST",
            "http.route": "/graphql",
            "http.response.status_code": 200,
            "url.path": "/graphql",
            "url.scheme": "http",
            "user_agent.original": "a client",
            "ticket_activity.actor_id": str(client.actor_id),
        }.items()
    )
    assert is_child(operation, request)
    assert attributes(operation) == {
        "graphql.operation.type": "mutation",
        "graphql.operation.name": "Create",
    }
    assert is_child(batch, operation)
    assert {span.kind for span in statements} == {SpanKind.CLIENT}
    [inserted] = [span for span in statements if span.name == "INSERT ticket_activity"]
    assert attributes(inserted)["db.system.name"] in {"sqlite", "postgresql"}
    assert attributes(inserted)["db.query.text"].startswith("INSERT INTO ticket_activity ")
    told = "".join(span.to_json() for span in exporter.get_finished_spans())
    assert "hidden" not in told
    assert client.token not in told


async def test_a_batch_that_several_share_is_linked_with_each(
    traced: Service, exporter: InMemorySpanExporter
) -> None:
    client = await traced.client()
    ticket = await client.create_ticket()
    exporter.clear()

    await asyncio.gather(*(client.create_activity(ticket) for _ in range(20)))

    batches = named(exporter, "write batch")
    assert sum(max(1, len(batch.links)) for batch in batches) == 20
    shared = max(batches, key=lambda batch: len(batch.links))
    operations = {span.context.span_id: span for span in named(exporter, "mutation")}
    assert shared.parent is None
    assert len(shared.links) > 1
    assert attributes(shared) == {"ticket_activity.batch.size": len(shared.links)}
    for link in shared.links:
        [back] = operations[link.context.span_id].links
        assert back.context.span_id == shared.context.span_id


async def test_a_read_is_traced_on_both_apis(
    traced: Service, exporter: InMemorySpanExporter
) -> None:
    client = await traced.client()
    entry = await client.create_activity(await client.create_ticket())
    exporter.clear()

    await client.find(entry["ticketId"], entry["id"])
    await client.get(entry["ticketId"], entry["id"])

    query = one(exporter, "query")
    rest = one(exporter, r"GET /v1/crm/tickets/\{ticketId\}/activity/\{activityId\}")
    batches = named(exporter, "read batch")
    assert [batch for batch in batches if is_child(batch, query)]
    assert [batch for batch in batches if is_child(batch, rest)]
    assert named(exporter, "SELECT .*")
    assert attributes(rest)["http.response.status_code"] == 200


async def test_a_fault_is_an_error_without_what_it_says(
    traced: Service, exporter: InMemorySpanExporter
) -> None:
    client = await traced.client()
    await client.get(TICKET, TICKET)
    await traced.execute("DROP TABLE ticket_activity")
    exporter.clear()

    await client.get(TICKET, TICKET)

    request = one(exporter, "GET /v1.*")
    assert request.status.status_code is StatusCode.ERROR
    assert attributes(request)["error.type"] == "500"
    assert attributes(request)["ticket_activity.code"] == "INTERNAL"
    failed = [
        span for span in named(exporter, "SELECT.*") if span.status.status_code is StatusCode.ERROR
    ]
    assert failed
    assert not [span for span in exporter.get_finished_spans() if span.events]


TICKET = "019320a4-0000-7000-8000-00000000ff01"


@pytest.mark.any_engine
async def test_operations_and_events_of_a_web_socket_are_traced(
    traced: Service, exporter: InMemorySpanExporter
) -> None:
    client = await traced.client()
    ticket = await client.create_ticket()
    exporter.clear()
    async with listening(traced) as origin:
        async with web_socket(origin, client.token) as ws:
            await follow(ws, ticketId=ticket)
            await client.create_activity(ticket)
            await receive(ws)
        connection = None
        async with asyncio.timeout(10):
            while not (connection := named(exporter, "GET /graphql")):  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    events = named(exporter, "subscription")
    assert len(events) == 2
    assert attributes(events[0]) == {
        "graphql.operation.type": "subscription",
        "graphql.operation.name": "Follow",
    }
    assert all(is_child(span, connection[0]) for span in events)


@pytest.mark.any_engine
async def test_health_and_what_nobody_asked_for_are_not_traced(
    traced: Service, exporter: InMemorySpanExporter
) -> None:
    await traced.http.get("/healthz")
    await traced.http.get("/readyz")

    assert exporter.get_finished_spans() == ()


@pytest.mark.any_engine
async def test_who_is_not_sampled_has_no_spans(
    traced: Service, exporter: InMemorySpanExporter
) -> None:
    client = await traced.client()

    await client.request(
        "POST",
        "/graphql",
        json={"query": UPDATE, "variables": {}},
        headers={"traceparent": f"00-{TRACE}-{PARENT}-00"},
    )

    assert exporter.get_finished_spans() == ()


def test_a_service_that_records_no_traces_does_not_load_what_would() -> None:
    code = "import sys, app.main; sys.exit('opentelemetry' in str([*sys.modules]))"

    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


@pytest.fixture
def collector() -> Iterator[tuple[str, list[ExportTraceServiceRequest]]]:
    """The address of a collector, and what it has received."""
    received: list[ExportTraceServiceRequest] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Print nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", received
    server.shutdown()
    thread.join()
    server.server_close()


def test_spans_are_sent_by_otlp_and_the_last_ones_at_the_end(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    collector: tuple[str, list[ExportTraceServiceRequest]],
) -> None:
    address, received = collector
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
    with serve(tmp_path / "demo.db", opentelemetry="true") as process:
        httpx2.get(f"{process.origin}/openapi.json")

    [resource] = [resource for request in received for resource in request.resource_spans]
    said = {each.key: each.value.string_value for each in resource.resource.attributes}
    assert said["service.name"] == "ticket-activity"
    assert [span.name for scope in resource.scope_spans for span in scope.spans] == [
        "GET /openapi.json"
    ]
