"""Shows for how long one request holds the event loop of a service.

Starts a service of one process on a database of its own, with a ticket of a hundred entries as
large as they may be, sends it the worst requests of each kind, one after the other, and measures
meanwhile how long requests take that need nothing but the loop.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from multiprocessing import Pipe, get_context
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import httpx2
from graphql import get_introspection_query

from tests.support.process import Process, serve

TICKET: Final = "0190a3f0-0000-7000-8000-000000000001"
LIMIT_MILLISECONDS: Final = 50
ENTRIES: Final = 100
ROUNDS: Final = 3
"""The shortest round counts: other work on the machine can only make a round longer."""

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


FIELDS_OF_TYPES: Final = "types { fields { name description } }"
WRONG_PAGE: Final = 'revisions(first: 1, after: "x") { nodes { version } }'


def requests() -> dict[str, Body]:
    """Return the most expensive requests known, within the limits and beyond."""
    return answers() | introspection() | inputs() | documents()


def answers() -> dict[str, Body]:
    selections = {
        "page of large entries": "nodes { message metadata }",
        "95 aliases of large messages": f"nodes {{ {aliased('message', 95)} }}",
        "9,500 fields": f"nodes {{ {aliased('version', 95)} }}",
        "100 pages of revisions": "nodes { revisions(first: 90) { nodes { version message } } }",
        "2 KB of alias on each entry": f"nodes {{ {'a' * 2_000}: id }}",
        "6,000 wrong cursors": f"nodes {{ {aliased(WRONG_PAGE, 60)} }}",
    }
    pages = {name: {"query": page(selection)} for name, selection in selections.items()}
    search = page("nodes { id }", '(filter: { text: "x y z" })')
    return pages | {"a text that nothing holds": {"query": search}}


def introspection() -> dict[str, Body]:
    queries = {
        "standard introspection": get_introspection_query(input_value_deprecation=True),
        "walk of the schema": f"{{ __schema {{ {SCHEMA_WALK} }} }}",
        "aliased introspection": f"{{ {aliased(f'__schema {{ {FIELDS_OF_TYPES} }}', 12)} }}",
        "introspection at the limit": f"{{ __schema {{ {FIELDS_OF_TYPES} }} }}",
    }
    return {name: {"query": query} for name, query in queries.items()}


def inputs() -> dict[str, Body]:
    ids = "query Q($v: [ID!]!) { nodes(ids: $v) { id } }"
    filtered = "query Q($v: TicketActivityFilter) " + page("totalCount", "(filter: $v)")
    metadata = {
        "metadata of 1 MB": [1] * 340_000,
        "metadata of 20,000 lists": [[]] * 20_000,
        "metadata of 32,700 numbers": [1] * 32_700,
        "metadata of 900 levels": nested(1, 900),
        "metadata of a text of 340 kB": "É" * 170_000,
    }
    variables = {
        "200,000 ids": (ids, [1] * 200_000),
        "100,000 types": (filtered, {"types": ["VIEW"] * 100_000}),
        "an id of 340,000 items": ("query Q($v: ID!) { ticket(id: $v) { id } }", [1] * 340_000),
        "100,000 decimals": ("{ __typename }", [[1.5]] * 100_000),
        "60,000 members": ("{ __typename }", {f"m{n}": n for n in range(60_000)}),
    }
    return {name: created({"a": value}) for name, value in metadata.items()} | {
        name: {"query": query, "variables": {"v": value}}
        for name, (query, value) in variables.items()
    }


def documents() -> dict[str, Body]:
    fragments = range(150)
    queries = {
        "2,000 tokens": "{ " + "a " * 1_998 + "}",
        "490 unknown fields": f"{{ {' '.join(f'tickt{n}' for n in range(490))} }}",
        "480 fields of one name": page(f"nodes {{ {'message ' * 480} }}"),
        "150 fragments": page(" ".join(f"...f{n}" for n in fragments))
        + " ".join(map(fragment, fragments)),
        "450 variables": f"query Q({' '.join(f'$v{n}: Int' for n in range(450))}) {{ __typename }}",
        "1,900 ids": f"{{ nodes(ids: [{' 1' * 1_900}]) {{ id }} }}",
        "an id of 60,000 characters": f'{{ ticket(id: "{"É" * 60_000}") {{ id }} }}',
    }
    hashed = {"persistedQuery": {"version": 1, "sha256Hash": "x" * 100_000}}
    return {name: {"query": query} for name, query in queries.items()} | {
        "a wrong hash": {"query": "{ __typename }", "extensions": hashed}
    }


def beat(origin: str, asked: Connection) -> None:
    """Run the process that measures: for each message, reply with the longest time since the last.

    Its requests, one after the other, need nothing of the service but the loop.
    """
    longest = 0.0
    with httpx2.Client(base_url=origin) as http:
        while True:
            began = time.perf_counter()
            http.get("/nothing-here")
            longest = max(longest, time.perf_counter() - began)
            if asked.poll():
                if asked.recv() is None:
                    return
                asked.send(longest)
                longest = 0.0


def measure(process: Process, heart: Connection) -> Iterator[tuple[str, float, str]]:
    """Yield each request with the longest that the loop was held, and what was answered."""
    authorized = {"Authorization": f"Bearer {process.token}"}
    with httpx2.Client(base_url=process.origin, timeout=60, headers=authorized) as http:
        fill(http)
        for name, body in requests().items():
            held = []
            for number in range(ROUNDS):
                # A different document each time: the same one would come from a cache.
                content = json.dumps(body | {"query": body["query"] + " " * number}).encode()
                longest(heart)
                response = post(http, content)
                held.append(longest(heart))
            yield name, min(held), outcome(response)


def longest(heart: Connection) -> float:
    heart.send("?")
    seconds: float = heart.recv()
    return seconds


def post(http: httpx2.Client, content: bytes) -> httpx2.Response:
    return http.post("/graphql", content=content, headers={"Content-Type": "application/json"})


def fill(http: httpx2.Client) -> None:
    post(
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
        post(http, content)


def outcome(response: httpx2.Response) -> str:
    errors = response.json().get("errors") or []
    codes = {error["extensions"]["code"] for error in errors}
    return f"{response.status_code}, {len(response.content):,} bytes {' '.join(sorted(codes))}"


def main() -> int:
    argparse.ArgumentParser(description=__doc__).parse_args()
    is_too_long = False
    heart, asked = Pipe()
    with TemporaryDirectory() as folder, serve(Path(folder) / "loop.db") as process:
        beating = get_context("spawn").Process(target=beat, args=(process.origin, asked))
        beating.start()
        for name, seconds, answered in measure(process, heart):
            is_over = seconds * 1000 > LIMIT_MILLISECONDS
            is_too_long |= is_over
            mark = " <-- too long" if is_over else ""
            print(f"{seconds * 1000:7.1f} ms  {name:30} {answered}{mark}", flush=True)
        heart.send(None)
        beating.join()
    return is_too_long


if __name__ == "__main__":
    sys.exit(main())
