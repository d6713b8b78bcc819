"""The most expensive GraphQL requests known, within the limits and beyond, by what they cost."""

from typing import Any, Final

from graphql import get_introspection_query

TICKET: Final = "0190a3f0-0000-7000-8000-000000000001"
CHANGED: Final = "0190a3f0-0000-7000-8000-000000000002"
"""A ticket with an entry that was changed often."""
SMALL: Final = "0190a3f0-0000-7000-8000-000000000003"
CREATE: Final = """
mutation Create($input: CreateTicketActivityInput!) {
  createTicketActivity(input: $input) { userErrors { message } }
}
"""
UPDATE: Final = """
mutation Update($input: UpdateTicketActivityInput!) {
  updateTicketActivity(input: $input) { userErrors { message } }
}
"""
CREATE_TICKET: Final = """
mutation Create($input: CreateTicketInput!) { createTicket(input: $input) { ticket { id } } }
"""

Body = dict[str, Any]


def bodies() -> dict[str, Body]:
    return answers() | introspection() | inputs() | documents()


def page(selection: str, arguments: str = "(first: 100)", ticket: str = TICKET) -> str:
    return f'{{ ticket(id: "{ticket}") {{ activities{arguments} {{ {selection} }} }} }}'


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
REVISION: Final = "version changedAt changedById message metadata isPrivate isWithheld"
LONG: Final = "tickt" + "y" * 100
COUNT: Final = "activities(first: 1) { totalCount }"
REVISIONS: Final = "revisions(first: 1) { nodes { version } pageInfo { hasNextPage } }"


def answers() -> dict[str, Body]:
    large = {
        "page of large entries": "nodes { message metadata }",
        "95 aliases of large messages": f"nodes {{ {aliased('message', 95)} }}",
        "95 aliases of metadata": f"nodes {{ {aliased('metadata', 95)} }}",
        "2 KB of alias on each entry": f"nodes {{ {'a' * 2_000}: id }}",
    }
    small = {
        "9,500 numbers": f"nodes {{ {aliased('version', 95)} }}",
        "9,500 times": f"nodes {{ {aliased('createdAt', 95)} }}",
        "9,500 lists": f"nodes {{ {aliased('viewerCannotUpdateReasons', 95)} }}",
        "9,000 fields of two lists": f"nodes {{ {aliased('id', 45)} }} "
        f"edges {{ node {{ {aliased('version', 45)} }} }}",
        "9,500 cursors": f"edges {{ {aliased('cursor', 95)} }}",
        "900 wrong cursors": f"nodes {{ {aliased(WRONG_PAGE, 9)} }}",
        "1,600 tickets": f"nodes {{ {aliased('ticket { id }', 16)} }}",
        "1,800 tickets": f"nodes {{ {aliased('ticket { mergedInto { id } }', 9)} }}",
        "8,900 revisions": "nodes { revisions(first: 89) { nodes { version } } }",
        "9,000 fields of revisions": (
            f"nodes {{ revisions(first: 12) {{ nodes {{ {REVISION} }} }} }}"
        ),
        "pages of revisions": f"nodes {{ {aliased(REVISIONS, 5)} }}",
        "84 pages of 84 entries": "nodes { ticket { activities(first: 84) { nodes { id } } } }",
        "1,300 counts": f"nodes {{ ticket {{ {aliased(COUNT, 13)} }} }}",
    }
    feed = (
        f'ticketActivityChanges(ticketId: "{CHANGED}", first: 100) {{ nodes {{ cursor '
        "ticketActivity { message metadata } } }"
    )
    search = page("nodes { id }", '(filter: { text: "x y z" })')
    queries = {name: page(selection) for name, selection in large.items()} | {
        name: page(selection, ticket=SMALL) for name, selection in small.items()
    }
    queries |= {
        "a text that nothing holds": search,
        "a page of a feed": f"{{ {feed} }}",
        "20 pages of a feed": f"{{ {aliased(feed, 20)} }}",
    }
    return {name: {"query": query} for name, query in queries.items()}


def introspection() -> dict[str, Body]:
    queries = {
        "standard introspection": get_introspection_query(input_value_deprecation=True),
        "walk of the schema": f"{{ __schema {{ {SCHEMA_WALK} }} }}",
        "aliased introspection": f"{{ {aliased(f'__schema {{ {FIELDS_OF_TYPES} }}', 12)} }}",
        "introspection at the limit": f"{{ __schema {{ {FIELDS_OF_TYPES} }} }}",
        "introspection beside data": f"{{ viewer {{ name }} __schema {{ {FIELDS_OF_TYPES} }} }}",
        "many types": "{ " + aliased('__type(name: "Ticket") { fields { name } }', 20) + " }",
    }
    return {name: {"query": query} for name, query in queries.items()}


def inputs() -> dict[str, Body]:
    ids = "query Q($v: [ID!]!) { nodes(ids: $v) { id } }"
    filtered = "query Q($v: TicketActivityFilter) " + page("totalCount", "(filter: $v)")
    metadata = {
        "metadata of 1 MB": [1] * 340_000,
        "metadata of 20,000 lists": [[]] * 20_000,
        "metadata of 30,000 lists": [[]] * 21_000,
        "metadata of 32,700 numbers": [1] * 32_700,
        "metadata of 16,300 decimals": [1.5] * 16_300,
        "metadata of 13,000 exponents": [1e300] * 10_900,
        "metadata of 7,000 objects": [{"a": 1}] * 7_000,
        "metadata of 900 levels": nested(1, 900),
        "metadata of 31 levels of 30,000": nested([1] * 30_000, 29),
        "metadata of a text of 340 kB": "É" * 170_000,
        "metadata of a text of 32 K": "É" * 32_000,
        "metadata of 1 MB of escapes": "\x01" * 170_000,
    }
    variables = {
        "200,000 ids": (ids, [1] * 200_000),
        "100 ids": (ids, [1] * 100),
        "100 long ids": (ids, ["x" * 9_000] * 100),
        "100,000 types": (filtered, {"types": ["VIEW"] * 100_000}),
        "100 types": (filtered, {"types": ["VIEW"] * 100}),
        "100 wrong types": (filtered, {"types": ["VEIW"] * 100}),
        "100 long wrong types": (filtered, {"types": ["VEIW" * 2_000] * 100}),
        "a text of 900 kB": (filtered, {"text": "x" * 900_000}),
        "a text of 900 kB of é": (filtered, {"text": "É" * 170_000}),
        "a time of 900 kB": (filtered, {"since": "1" * 900_000}),
        "a filter of 40,000 members": (filtered, {f"m{n}": 1 for n in range(40_000)}),
        "an id of 340,000 items": ("query Q($v: ID!) { ticket(id: $v) { id } }", [1] * 340_000),
        "100,000 decimals": ("{ __typename }", [[1.5]] * 100_000),
        "250,000 decimals": ("{ __typename }", [1.5] * 200_000),
        "100,000 exponents": ("{ __typename }", [1e300] * 100_000),
        "340,000 lists": ("{ __typename }", [[]] * 250_000),
        "170,000 objects": ("{ __typename }", [{}] * 250_000),
        "80,000 objects": ("{ __typename }", [{"a": 1}] * 80_000),
        "60,000 members": ("{ __typename }", {f"m{n}": n for n in range(60_000)}),
        "200,000 integers of 4,000 digits": ("{ __typename }", [10**4_200] * 200),
    }
    return {name: created({"a": value}) for name, value in metadata.items()} | {
        name: {"query": query, "variables": {"v": value}}
        for name, (query, value) in variables.items()
    }


def documents() -> dict[str, Body]:
    queries = {
        "2,000 tokens": "{ " + "a " * 1_998 + "}",
        "490 unknown fields": f"{{ {' '.join(f'tickt{n}' for n in range(490))} }}",
        "490 long unknown fields": f"{{ {' '.join(f'{LONG}{n}' for n in range(490))} }}",
        "480 fields of one name": page(f"nodes {{ {'message ' * 480} }}"),
        "90 aliases twice": page(f"nodes {{ {aliased('message', 45)} {aliased('id', 45)} }}"),
        "150 fragments": fragments(150),
        "80 fragments": fragments(80),
        "80 fragments spread twice": fragments(80, spread=2),
        "80 fragments of 6 fields": wide_fragments(79),
        "460 fields by a fragment": many_fields(11),
        "3,800 fields by a fragment": many_fields(95),
        "80 nested fragments": chained_fragments(79),
        "450 variables": f"query Q({' '.join(f'$v{n}: Int' for n in range(450))}) {{ __typename }}",
        "300 used variables": used_variables(180),
        "150 operations": " ".join(f"query Q{n} {{ viewer {{ name }} }}" for n in range(220)),
        "80 operations of 79 spreads": " ".join(f"query Q{n} {{ ...f }}" for n in range(300))
        + " fragment f on Query { viewer { name actorId scopes } }",
        "20 operations, 70 fragments": crossed(24, 70),
        "350 variables in 2 operations": crossed_variables(),
        "1,900 ids": f"{{ nodes(ids: [{' 1' * 1_900}]) {{ id }} }}",
        "1,900 wrong ids": f"{{ nodes(ids: [{' A' * 1_900}]) {{ id }} }}",
        "1,900 enum values": page("totalCount", f"(filter: {{ types: [{' VIEW' * 1_900}] }})"),
        "1,900 wrong enum values": page(
            "totalCount", f"(filter: {{ types: [{' VEIW' * 1_900}] }})"
        ),
        "600 members of a filter": page(
            "totalCount", f"(filter: {{ {' '.join(f'm{n}: 1' for n in range(600))} }})"
        ),
        "600 arguments": page("totalCount", f"({' '.join(f'm{n}: 1' for n in range(600))})"),
        "480 conflicting fields": page(conflicts()),
        "90 directives": f"{{ viewer {{ name {'@include(if: true) ' * 99} }} }}",
        "90 unknown directives": f"{{ viewer {{ name {'@inclde(if: true) ' * 99} }} }}",
        "490 fields with directives": page(f"nodes {{ {'message @skip(if: false) ' * 99} }}"),
        "an id of 60,000 characters": f'{{ ticket(id: "{"É" * 60_000}") {{ id }} }}',
        "a block string": '{ ticket(id: """' + " x\n" * 20_000 + '""") { id } }',
        "a comment of 60,000": "{ viewer { name } } #" + "x" * 60_000,
        "60,000 spaces": "{ viewer { name } }" + " ,\n" * 20_000,
        "2,000 braces": "{ a" * 990 + "}" * 990,
        "a literal of metadata": literal("[" + "1 " * 1_900 + "]"),
        "a deep literal": literal("[" * 190 + "]" * 190),
        "a literal of 600 members": literal("{" + " ".join(f"m{n}: 1" for n in range(600)) + "}"),
        "a literal text of 60 kB": literal('"' + "x" * 60_000 + '"'),
    }
    hashed = {"persistedQuery": {"version": 1, "sha256Hash": "x" * 100_000}}
    miss = {"persistedQuery": {"version": 1, "sha256Hash": "x" * 64}}
    return {name: {"query": query} for name, query in queries.items()} | {
        "a wrong hash": {"query": "{ __typename }", "extensions": hashed},
        "a miss": {"query": "", "extensions": miss},
    }


def fragments(count: int, spread: int = 1) -> str:
    spreads = " ".join(f"...f{n}" for n in range(count)) + " "
    return page(spreads * spread) + " ".join(fragment(n) for n in range(count))


def wide_fragments(count: int) -> str:
    bodies = "totalCount pageInfo { hasNextPage } nodes { id message version }"
    return page(" ".join(f"...f{n}" for n in range(count))) + " ".join(
        f"fragment f{n} on TicketActivityConnection {{ {bodies} }}" for n in range(count)
    )


def many_fields(places: int) -> str:
    """Nearly as many fields as an operation may have, by a fragment at many places."""
    spreads = " ".join(f"a{n}: mergedInto {{ ...f }}" for n in range(places))
    return f"""
      {{ ticket(id: "{SMALL}") {{ {spreads} }} }}
      fragment f on Ticket {{ id createdAt changesCursor activities(first: 1) {{ totalCount
        filteredCount pageInfo {{ startCursor endCursor }} nodes {{ ...n }}
        edges {{ cursor node {{ ...n }} }} }} }}
      fragment n on TicketActivity {{ id ticketId activityType isPrivate createdAt actorId message
        metadata documentId version updatedAt updatedById isEdited viewerCanUpdate
        viewerCannotUpdateReasons }}"""


def chained_fragments(count: int) -> str:
    return (
        page("...f0")
        + " ".join(
            f"fragment f{n} on TicketActivityConnection {{ totalCount ...f{n + 1} }}"
            for n in range(count)
        )
        + f" fragment f{count} on TicketActivityConnection {{ totalCount }}"
    )


def used_variables(count: int) -> str:
    declared = " ".join(f"$v{n}: Boolean!" for n in range(count))
    used = " ".join(f"name @include(if: $v{n})" for n in range(99))
    return f"query Q({declared}) {{ viewer {{ {used} }} }}"


def crossed(operations: int, count: int) -> str:
    """Operations that each spread a chain of fragments, each with a variable."""
    chain = " ".join(
        f"fragment f{n} on Query {{ viewer {{ name @include(if: $v) }} ...f{n + 1} }}"
        for n in range(count)
    )
    return (
        " ".join(f"query Q{n}($v: Boolean!) {{ ...f0 }}" for n in range(operations))
        + chain
        + f" fragment f{count} on Query {{ viewer {{ name }} }}"
    )


def crossed_variables() -> str:
    declared = " ".join(f"$v{n}: Int" for n in range(240))
    return f"query A({declared}) {{ __typename }} query B({declared}) {{ __typename }}"


def conflicts() -> str:
    return " ".join(f"nodes {{ a: {name} }}" for name in ("id", "message", "version") * 30)


def literal(metadata: str) -> str:
    given = f'ticketId: "{TICKET}", activityType: COMMENT, metadata: {{ a: {metadata} }}'
    return f"mutation {{ createTicketActivity(input: {{ {given} }}) {{ userErrors {{ code }} }} }}"
