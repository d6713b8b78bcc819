"""Asks what the dashboard shows of the service under a load that rises and falls.

A real Prometheus reads /metrics each second and answers the queries of the panels. Grafana itself
is not needed; `benchmark.panels` draws the answers.
"""

import asyncio
import json
import math
import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode
from urllib.request import urlopen

import httpx2

from benchmark import contenders
from benchmark.contenders import ROOT
from benchmark.dataset import Dataset, read_dataset
from benchmark.delivery import open_subscribers

DASHBOARD: Final = ROOT / "scripts/deploy/grafana-dashboard.json"
CLIENTS: Final = 8
SUBSCRIBERS: Final = 40
RATE_INTERVAL: Final = "10s"

PAGE: Final = """query Timeline($id: ID!) {
  ticket(id: $id) { activities(first: 20) { totalCount nodes { id message version } } }
}"""
ENTRY: Final = """query Entry($t: ID!, $a: ID!) {
  ticketActivity(ticketId: $t, activityId: $a) { message version }
}"""
EDIT: Final = """mutation Edit($t: ID!, $a: ID!, $m: String!, $v: Int) {
  updateTicketActivity(input: {ticketId: $t, activityId: $a, message: $m, expectedVersion: $v}) {
    ticketActivity { version }
    userErrors { code }
  }
}"""


def ask_panels(folder: Path, seconds: float) -> dict[str, Any]:
    """Return the title, unit and lines of each panel over a run of so many seconds."""
    file, port = folder / "service.db", str(contenders.free_port())
    contenders.seed(file, activities=500, tickets=200)
    token = contenders.create_token(file, *contenders.ALL_SCOPES)
    with (
        contenders.serve(file, metrics_port=port, log_level="error") as server,
        prometheus(folder, port) as address,
    ):
        began = time.time()
        asyncio.run(load(server.port, token, read_dataset(file), seconds))
        return {"seconds": seconds, "panels": [*_panels(address, began, time.time())]}


@contextmanager
def prometheus(folder: Path, metrics_port: str) -> Iterator[str]:
    """Run Prometheus, which reads the metrics each second; yield its address."""
    if not shutil.which("prometheus"):
        raise RuntimeError("Prometheus is not installed; Debian's package is `prometheus`.")
    config, port = folder / "prometheus.yml", contenders.free_port()
    jobs = f"[{{job_name: tickets, static_configs: [{{targets: ['127.0.0.1:{metrics_port}']}}]}}]"
    config.write_text(f"global: {{scrape_interval: 1s}}\nscrape_configs: {jobs}\n")
    options = {
        "config.file": str(config),
        "storage.tsdb.path": str(folder / "tsdb"),
        "web.listen-address": f"127.0.0.1:{port}",
        "log.level": "error",
    }
    popen = subprocess.Popen(
        ["prometheus", *(f"--{name}={value}" for name, value in options.items())]
    )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        popen.terminate()
        popen.wait()


async def load(port: int, token: str, dataset: Dataset, seconds: float) -> None:
    """Read and write by two doors, with some mistakes, and more of it in the middle of the time."""
    began = time.monotonic()
    entries = dataset.entries[:SUBSCRIBERS]
    subscribers = await open_subscribers(port, token, entries, SUBSCRIBERS)

    async def use(http: httpx2.AsyncClient) -> None:
        while (passed := time.monotonic() - began) < seconds:
            await _use_once(http, token, *random.choice(entries), dataset.long_ticket)
            await asyncio.sleep(0.2 * (1 - 0.9 * math.sin(math.pi * passed / seconds)))

    limits = httpx2.Limits(max_connections=CLIENTS)
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", limits=limits) as http:
        await asyncio.gather(*(use(http) for _ in range(CLIENTS)))
    for one in subscribers:
        one.transport.close()


async def _use_once(
    http: httpx2.AsyncClient, token: str, entry: str, ticket: str, long_ticket: str
) -> None:
    http.headers["Authorization"] = f"Bearer {token}"
    message = f"edited at {time.monotonic()}"
    path = f"/v1/crm/tickets/{ticket}/activity/{entry}"
    variables = {"t": ticket, "a": entry, "m": message, "v": random.choice([None, None, None, 1])}
    chosen = random.random()
    if chosen < 0.35:  # noqa: PLR2004, so do the shares below
        await http.post("/graphql", json={"query": ENTRY, "variables": variables})
    elif chosen < 0.6:  # noqa: PLR2004
        await http.post("/graphql", json={"query": PAGE, "variables": {"id": long_ticket}})
    elif chosen < 0.85:  # noqa: PLR2004
        await http.post("/graphql", json={"query": EDIT, "variables": variables})
    elif chosen < 0.95:  # noqa: PLR2004
        await http.put(path, json={"message": message})
    elif chosen < 0.98:  # noqa: PLR2004
        await http.put(path, json={"message": message}, headers={"If-Match": '"1"'})
    else:
        await http.get("/favicon.ico")


def _panels(address: str, began: float, ended: float) -> Iterator[dict[str, Any]]:
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        lines = {}
        for target in panel["targets"]:
            query = target["expr"].replace("$__rate_interval", RATE_INTERVAL)
            for series in _query(address, query, began, ended):
                name = target["legendFormat"]
                for label, value in series["metric"].items():
                    name = name.replace(f"{{{{{label}}}}}", value or "(none)")
                lines[name] = [(at - began, float(value)) for at, value in series["values"]]
        unit = panel["fieldConfig"]["defaults"]["unit"]
        yield {"title": panel["title"], "unit": unit, "lines": lines, "place": panel["gridPos"]}


def _query(address: str, query: str, began: float, ended: float) -> list[dict[str, Any]]:
    asked = urlencode({"query": query, "start": began, "end": ended, "step": 1})
    with urlopen(f"{address}/api/v1/query_range?{asked}") as answer:  # noqa: S310
        found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
        return found
