"""The page for Prometheus, from one process and from several, and the dashboard that reads it."""

import asyncio
import json
import os
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from app.demo import COMMENT, PRINTER
from app.measures import OTHER, Requests
from tests.support.live import follow, web_socket
from tests.support.process import ROOT, Process, environment, serve
from tests.test_shutdown import WORKERS

PATH = f"/v1/crm/tickets/{PRINTER}/activity/{COMMENT}"
DASHBOARD = json.loads((ROOT / "scripts/deploy/grafana-dashboard.json").read_text())
ENTRY = f"""query Entry {{
  ticketActivity(ticketId: "{PRINTER}", activityId: "{COMMENT}") {{ id }}
}}"""


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return str(listener.getsockname()[1])


def families(port: str) -> dict[str, Metric]:
    page = httpx2.get(f"http://127.0.0.1:{port}/metrics")
    return {family.name: family for family in text_string_to_metric_families(page.text)}


def values(port: str, name: str, **labels: str) -> list[float]:
    """Return the samples of a name whose labels include these."""
    return [
        sample.value
        for family in families(port).values()
        for sample in family.samples
        if sample.name == name and sample.labels.items() >= labels.items()
    ]


def total(port: str, name: str, **labels: str) -> float:
    return sum(values(port, name, **labels))


async def use(process: Process) -> None:
    async with httpx2.AsyncClient(
        base_url=process.origin, headers={"Authorization": f"Bearer {process.token}"}
    ) as http:
        for number in range(4):
            await http.put(PATH, json={"message": f"number {number}"})
            await http.post("/graphql", json={"query": ENTRY})
        await http.get("/nowhere")


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The port of the metrics of a process that was used."""
    port = free_port()
    file = tmp_path_factory.mktemp("measured") / "demo.db"
    with serve(file, metrics_port=port) as process:
        asyncio.run(use(process))
        asyncio.run(subscribed(process))
        yield port


IMPORT = """
mutation Import($input: CreateTicketActivityInput!) {
  createTicketActivity(input: $input) { userErrors { message } }
}
"""


async def subscribed(process: Process) -> None:
    """Follow the ticket, and receive two changes of it, of which one was made long ago."""
    old = {"activityType": "COMMENT", "createdAt": "2001-02-03T04:05:06Z", "ticketId": str(PRINTER)}
    async with web_socket(process.origin, process.token) as ws:
        await follow(ws, ticketId=str(PRINTER))
        async with httpx2.AsyncClient(base_url=process.origin) as http:
            headers = {"Authorization": f"Bearer {process.token}"}
            await http.put(PATH, json={"message": "heard"}, headers=headers)
            await asyncio.wait_for(ws.recv(), 10)
            body = {"query": IMPORT, "variables": {"input": old}}
            answer = await http.post("/graphql", json=body, headers=headers)
            assert '"userErrors":[]' in answer.text, answer.text
        await asyncio.wait_for(ws.recv(), 10)


def test_requests_are_counted_by_door_operation_and_status(port: str) -> None:
    name = "ticket_activity_request_duration_seconds"

    def count(**labels: str) -> float:
        return total(port, f"{name}_count", **labels)

    assert count(door="rest", operation="updateTicketActivity", status="200") == 5
    assert count(door="graphql", operation="Entry", status="200") == 4
    assert count(door="websocket", operation="Follow", status="499") == 1
    assert count(door="other", operation="", status="404") == 1
    assert total(port, f"{name}_bucket", door="rest", le="+Inf") == 5
    assert total(port, f"{name}_sum", door="rest") > 0
    assert total(port, "ticket_activity_response_bytes_total", door="rest") > 5 * 200


def test_what_the_writer_the_reader_the_feed_and_the_caches_do_is_measured(port: str) -> None:
    assert total(port, "ticket_activity_changes_total", change="updated") == 5
    assert total(port, "ticket_activity_commit_duration_seconds_count") >= 5
    assert total(port, "ticket_activity_write_batch_commands_sum") >= 5
    assert total(port, "ticket_activity_read_batch_operations_sum") >= 4
    assert total(port, "ticket_activity_feed_lag_seconds_count") >= 2
    assert total(port, "ticket_activity_feed_lag_seconds_sum") < 60
    assert values(port, "ticket_activity_subscriptions") == [0]
    assert total(port, "ticket_activity_cache_lookups_total", cache="documents", result="hit") >= 3
    assert total(port, "ticket_activity_executions_total") >= 4
    assert total(port, "process_resident_memory_bytes") > 20 * 1024 * 1024
    assert 10 < total(port, "process_open_fds") < total(port, "process_max_fds")


def test_every_metric_of_the_dashboard_is_on_the_page_with_the_labels_it_uses(port: str) -> None:
    samples: dict[str, list[Sample]] = {}
    for family in families(port).values():
        for sample in family.samples:
            samples.setdefault(sample.name, []).append(sample)
    queries = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]

    assert len(queries) > 20
    for query in queries:
        names = set(re.findall(r"\b(?:ticket_activity|process|python)_[a-z_]+", query))
        assert names
        assert names <= samples.keys(), query
        labels = {
            label.strip()
            for found in re.findall(r"by \(([^)]*)\)|\{([a-z]+)=", query)
            for label in ",".join(found).split(",")
            if label.strip()
        }
        for name in names:
            assert labels <= samples[name][0].labels.keys(), query


async def test_the_counts_of_workers_add_up_and_outlive_them(tmp_path: Path) -> None:
    port = free_port()
    with serve(tmp_path / "demo.db", 2, metrics_port=port) as process:

        async def until(name: str, value: float) -> None:
            async with asyncio.timeout(30):
                while await asyncio.to_thread(total, port, name) != value:
                    pass

        await until("ticket_activity_processes", 2)
        await use(process)
        await until("ticket_activity_changes_total", 4)
        before = process.workers
        os.kill(min(before), signal.SIGKILL)
        os.kill(max(before), signal.SIGKILL)

        await until("ticket_activity_worker_deaths_total", 2)
        await until("ticket_activity_processes", 2)
        assert total(port, "ticket_activity_changes_total") == 4


@WORKERS
def test_a_port_of_metrics_that_is_in_use_is_one_line(tmp_path: Path, workers: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with pytest.raises(AssertionError, match="the service ended with 1"):
            serve(tmp_path / "demo.db", workers, metrics_port=port, log=tmp_path / "log")

    *_, line = (tmp_path / "log").read_text().splitlines()
    assert f"ticket-activity: Cannot serve metrics on 127.0.0.1 port {port}" in line


def test_without_a_port_nothing_else_listens(tmp_path: Path) -> None:
    assert "TICKET_ACTIVITY_METRICS_PORT" not in environment(tmp_path / "demo.db")
    with serve(tmp_path / "demo.db") as process:
        listening = Path(f"/proc/{process.popen.pid}/net/tcp")
        own = {str(file.readlink()) for file in Path(f"/proc/{process.popen.pid}/fd").iterdir()}
        listeners = [
            line
            for line in listening.read_text().splitlines()[1:]
            if line.split()[3] == "0A" and f"socket:[{line.split()[9]}]" in own
        ]
        assert httpx2.get(f"{process.origin}/metrics").status_code == 404

    assert len(listeners) == 1


def test_names_of_operations_are_bounded_in_number_and_length() -> None:
    requests = Requests()

    for number in range(1000):
        requests.note(("graphql", f"Operation{number}", 200), 0.1, 1)
    requests.note(("graphql", "x" * 10_000, 200), 0.1, 1)

    operations = {operation for _door, operation, _status in requests.durations}
    assert len(operations) == 201
    assert sum(requests.durations["graphql", OTHER, 200].counts) == 801
    assert sum(requests.sizes.values()) == 1001
