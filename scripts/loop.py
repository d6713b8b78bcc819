"""Shows for how long one request holds the event loop of a service.

Starts a service of one process on a database of its own, with a ticket of a hundred entries as
large as they may be, sends it the worst requests of each kind, one after the other, and measures
meanwhile how long requests take that need nothing but the loop.
"""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import httpx2
from graphql import get_introspection_query

from tests.support.process import Process, serve

TICKET: Final = "0190a3f0-0000-7000-8000-000000000001"
LIMIT_MILLISECONDS: Final = 50
ENTRIES: Final = 100

CREATE: Final = """
mutation Create($input: CreateTicketActivityInput!) {
  createTicketActivity(input: $input) { userErrors { message } }
}
"""
CREATE_TICKET: Final = """
mutation Create($input: CreateTicketInput!) { createTicket(input: $input) { ticket { id } } }
"""

Body = dict[str, Any]


def page(selection: str, arguments: str = "(first: 100)") -> str:
    return f'{{ ticket(id: "{TICKET}") {{ activities{arguments} {{ {selection} }} }} }}'


def aliased(field: str, times: int) -> str:
    return " ".join(f"a{n}: {field}" for n in range(times))


def created(metadata: Any) -> Body:
    variables = {"input": {"ticketId": TICKET, "activityType": "COMMENT", "metadata": metadata}}
    return {"query": CREATE, "variables": variables}


def fragment(number: int) -> str:
    return f"fragment f{number} on TicketActivityConnection {{ totalCount }}"


def nested(value: Any, times: int) -> Any:
    for _ in range(times):
        value = [value]
    return value


SCHEMA_WALK: Final = (
    "types { fields { args { name } type { name fields { name type { name } } } } }"
)


def requests() -> dict[str, Body]:
    """Return the worst requests that anybody has thought of, within the limits and beyond."""
    return {
        "nothing": {"query": "{ __typename }"},
        "page of large entries": {"query": page("nodes { message metadata }")},
        "95 aliases of large messages": {"query": page(f"nodes {{ {aliased('message', 95)} }}")},
        "many fields": {"query": page(f"nodes {{ {aliased('version', 95)} }}")},
        "many revisions": {
            "query": page("nodes { revisions(first: 100) { nodes { version } } }", "(first: 99)")
        },
        "long alias": {"query": page(f"nodes {{ {'a' * 100_000}: id }}")},
        "many errors": {
            "query": page(f"nodes {{ {aliased('revisions(first: -1) { __typename }', 50)} }}")
        },
        "standard introspection": {"query": get_introspection_query(input_value_deprecation=True)},
        "walk of the schema": {"query": f"{{ __schema {{ {SCHEMA_WALK} }} }}"},
        "aliased introspection": {
            "query": f"{{ {aliased('__schema { ' + SCHEMA_WALK + ' }', 20)} }}"
        },
        "aliased types": {
            "query": f"{{ __schema {{ {aliased('types { fields { name description } }', 60)} }} }}"
        },
        "metadata of 1 MB": created({"a": [1] * 340_000}),
        "metadata of many lists": created({"a": [[]] * 20_000}),
        "metadata of many numbers": created({"a": [1] * 32_700}),
        "metadata of deep nesting": created({"a": nested(1, 900)}),
        "metadata of a long text": created({"a": "É" * 170_000}),
        "message of 1 MB": {
            "query": CREATE,
            "variables": {"input": {"ticketId": TICKET, "message": "É" * 170_000}},
        },
        "200,000 ids": {
            "query": "query Q($v: [ID!]!) { nodes(ids: $v) { id } }",
            "variables": {"v": [1] * 200_000},
        },
        "1,900 ids in the document": {
            "query": f"{{ nodes(ids: [{' 1' * 1_900}]) {{ id }} }}",
        },
        "100,000 types": {
            "query": "query Q($v: TicketActivityFilter) " + page("totalCount", "(filter: $v)"),
            "variables": {"v": {"types": ["VIEW"] * 100_000}},
        },
        "long id": {"query": f'{{ ticket(id: "{"É" * 100_000}") {{ id }} }}'},
        "id that is a list": {
            "query": "query Q($v: UUID!) { ticket(id: $v) { id } }",
            "variables": {"v": [1] * 340_000},
        },
        "2,000 tokens": {"query": "{ " + "a " * 1_998 + "}"},
        "400 unknown fields": {"query": f"{{ {' '.join(f'tickt{n}' for n in range(490))} }}"},
        "overlapping fields": {"query": page(f"nodes {{ {'message ' * 480} }}")},
        "many fragments": {
            "query": page(" ".join(f"...f{n}" for n in range(150)))
            + "".join(
                f" fragment f{n} on TicketActivityConnection {{ totalCount }}" for n in range(150)
            )
        },
        "many variables": {
            "query": f"query Q({' '.join(f'$v{n}: Int' for n in range(450))}) {{ __typename }}"
        },
        "many members": {
            "query": "{ __typename }",
            "variables": {f"v{n}": n for n in range(70_000)},
        },
        "not JSON after 1 MB": {"query": "{ __typename }", "variables": {"a": [[1.5]] * 100_000}},
        "a wrong hash": {
            "query": "{ __typename }" + " " * 100_000,
            "extensions": {"persistedQuery": {"version": 1, "sha256Hash": "x" * 100_000}},
        },
    }


@asynccontextmanager
async def heartbeat(http: httpx2.AsyncClient, lags: list[float]) -> AsyncIterator[None]:
    """Collect how long requests took that need nothing but the loop, sent one after the other."""

    async def beat() -> None:
        while True:
            began = time.perf_counter()
            await http.get("/nothing-here")
            lags.append(time.perf_counter() - began)

    task = asyncio.create_task(beat())
    try:
        yield
    finally:
        task.cancel()


async def measure(process: Process) -> dict[str, tuple[float, str]]:
    """Return for each request the longest that the loop was held, and what was answered."""
    authorized = {"Authorization": f"Bearer {process.token}"}
    results: dict[str, tuple[float, str]] = {}
    async with (
        httpx2.AsyncClient(base_url=process.origin, timeout=60) as other,
        httpx2.AsyncClient(base_url=process.origin, timeout=60, headers=authorized) as http,
    ):
        await fill(http)
        for name, body in requests().items():
            content = json.dumps(body).encode()
            held = []
            for _ in range(3):
                lags: list[float] = []
                async with heartbeat(other, lags):
                    await asyncio.sleep(0.05)
                    response = await post(http, content)
                    await asyncio.sleep(0.02)
                held.append(max(lags))
            results[name] = min(held), outcome(response)
    return results


async def post(http: httpx2.AsyncClient, content: bytes) -> httpx2.Response:
    return await http.post(
        "/graphql", content=content, headers={"Content-Type": "application/json"}
    )


async def fill(http: httpx2.AsyncClient) -> None:
    await post(
        http, json.dumps({"query": CREATE_TICKET, "variables": {"input": {"id": TICKET}}}).encode()
    )
    large = {
        "ticketId": TICKET,
        "activityType": "COMMENT",
        "message": "long text\n" * 6_500,
        "metadata": {"a": ["long text\n"] * 4_500},
    }
    content = json.dumps({"query": CREATE, "variables": {"input": large}}).encode()
    for _ in range(ENTRIES):
        await post(http, content)


def outcome(response: httpx2.Response) -> str:
    errors = response.json().get("errors") or []
    codes = {error["extensions"]["code"] for error in errors}
    return f"{response.status_code}, {len(response.content):,} bytes {' '.join(sorted(codes))}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.parse_args()
    with TemporaryDirectory() as folder, serve(Path(folder) / "loop.db") as process:
        results = asyncio.run(measure(process))
    for name, (seconds, answered) in results.items():
        mark = " <-- too long" if seconds * 1000 > LIMIT_MILLISECONDS else ""
        print(f"{seconds * 1000:7.1f} ms  {name:32} {answered}{mark}")
    return any(seconds * 1000 > LIMIT_MILLISECONDS for seconds, _ in results.values())


if __name__ == "__main__":
    sys.exit(main())
