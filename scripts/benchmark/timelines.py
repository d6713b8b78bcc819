"""Measures pages, counts and text search of a file that scripts/seed has made."""

import json
import time
from collections.abc import Callable
from contextlib import closing
from datetime import datetime
from http.client import HTTPConnection
from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmark import contenders
from benchmark.dataset import read_dataset

PAGE: Final = """
query Page(
  $id: ID!, $first: Int, $after: String, $last: Int,
  $filter: TicketActivityFilter, $orderBy: TicketActivityOrder
) {
  ticket(id: $id) {
    activities(first: $first, after: $after, last: $last, filter: $filter, orderBy: $orderBy) {
      nodes { id activityType createdAt actorId message metadata version updatedAt }
      pageInfo { startCursor endCursor hasNextPage hasPreviousPage }
    }
  }
}
"""
COUNT: Final = "query Count($id: ID!) { ticket(id: $id) { activities { totalCount } } }"
ENDS: Final = """
query Ends($id: ID!) {
  ticket(id: $id) {
    opening: activities(first: 1) { nodes { createdAt } }
    newest: activities(last: 1) { nodes { createdAt } }
  }
}
"""
PAGE_SIZE: Final = 20
FAST_ROUNDS: Final = 30
SLOW_ROUNDS: Final = 3
DEADLINE: Final = "600"
"""Nothing here is to be cut off."""

Measure = Callable[[], object]
Query = Callable[..., Any]


def measure_timelines(file: Path) -> None:
    """Print what pages of the longest timeline take, with ratios to the first one."""
    # Reading without `activity:private` is the harder case: it filters.
    token = contenders.create_token(file, "activity:read")
    ticket = read_dataset(file).long_ticket
    with contenders.serve(file, query_deadline_seconds=DEADLINE) as server:
        connection = HTTPConnection("127.0.0.1", server.port, timeout=float(DEADLINE))
        with closing(connection):
            query = _bound_query(connection, token, ticket)
            found = _medians(_pages(query), FAST_ROUNDS) | _medians(_scans(query), SLOW_ROUNDS)
    unit = next(iter(found.values()))
    print("| read | ms | ratio |\n|---|--:|--:|")
    for name, value in found.items():
        print(f"| {name} | {value:.2f} | {value / unit:.2f} |")


def _bound_query(connection: HTTPConnection, token: str, ticket: str) -> Query:
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}

    def query(text: str, **variables: Any) -> Any:
        body = json.dumps({"query": text, "variables": {"id": ticket} | variables})
        connection.request("POST", "/graphql", body, headers)
        document = json.load(connection.getresponse())
        if "errors" in document:
            raise RuntimeError(document["errors"])
        return document["data"]["ticket"]

    return query


def _pages(query: Query) -> dict[str, Measure]:
    """First, middle and last page, in every order."""
    middle = _middle_of(query)
    measures: dict[str, Measure] = {}
    for field in ("CREATED_AT", "UPDATED_AT"):
        for direction, later in (("ASC", "since"), ("DESC", "until")):
            order = {"field": field, "direction": direction}
            half = query(PAGE, first=1, filter={later: middle}, orderBy=order)
            after = half["activities"]["pageInfo"]["endCursor"]
            windows = {
                "first": {"first": PAGE_SIZE},
                "middle": {"first": PAGE_SIZE, "after": after},
                "last": {"last": PAGE_SIZE},
            }
            for place, window in windows.items():
                name = f"{place} page, {field} {direction}"
                measures[name] = _call(query, PAGE, orderBy=order, **window)
    return measures


def _scans(query: Query) -> dict[str, Measure]:
    """What grows with the timeline."""
    texts = {
        "text: two words that many entries have": "printer urgent",
        "text: a word that no entry has": "zeppelin",
    }
    found = {
        name: _call(query, PAGE, first=PAGE_SIZE, filter={"text": text})
        for name, text in texts.items()
    }
    return {"totalCount": _call(query, COUNT)} | found


def _middle_of(query: Query) -> str:
    """Return a time in the middle of the timeline."""
    ends = query(ENDS)
    first, last = (
        datetime.fromisoformat(ends[end]["nodes"][0]["createdAt"]) for end in ("opening", "newest")
    )
    return (first + (last - first) / 2).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _call(query: Query, text: str, **variables: Any) -> Measure:
    return lambda: query(text, **variables)


def _medians(measures: dict[str, Measure], rounds: int) -> dict[str, float]:
    """Run all of them in turn, so that what disturbs one disturbs all; milliseconds."""
    taken: dict[str, list[float]] = {name: [] for name in measures}
    for measure in measures.values():
        measure()
    for _ in range(rounds):
        for name, measure in measures.items():
            began = time.perf_counter()
            measure()
            taken[name].append((time.perf_counter() - began) * 1000)
    return {name: median(times) for name, times in taken.items()}
