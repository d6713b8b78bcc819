"""Absent and null are two things in every input: what each does, field by field."""

from typing import Any
from uuid import UUID

import pytest
from graphql import GraphQLInputObjectType, build_schema

from app.auth import Scope
from app.graphql.schema import print_schema
from tests.support.service import JSON, Client, Service

CREATED = (
    "ticketActivity { message metadata isPrivate documentId actorId } userErrors { code path }"
)
ACTOR = UUID("0190a3f0-5c1e-7b2a-9d3e-4f5a6b7c8d9e")
MUTATIONS = {
    "CreateTicketInput": f"""
      mutation M($input: CreateTicketInput!) {{
        result: createTicket(input: $input) {{ {CREATED} }}
      }}
    """,
    "CreateTicketActivityInput": f"""
      mutation M($input: CreateTicketActivityInput!) {{
        result: createTicketActivity(input: $input) {{ {CREATED} }}
      }}
    """,
    "UpdateTicketActivityInput": f"""
      mutation M($input: UpdateTicketActivityInput!) {{
        result: updateTicketActivity(input: $input) {{ {CREATED} }}
      }}
    """,
    "DeleteTicketActivityInput": """
      mutation M($input: DeleteTicketActivityInput!) {
        result: deleteTicketActivity(input: $input) { userErrors { code path } }
      }
    """,
    "RedactTicketActivityInput": """
      mutation M($input: RedactTicketActivityInput!) {
        result: redactTicketActivity(input: $input) { userErrors { code path } }
      }
    """,
    "RestoreTicketActivityInput": """
      mutation M($input: RestoreTicketActivityInput!) {
        result: restoreTicketActivity(input: $input) { userErrors { code path } }
      }
    """,
    "MergeTicketsInput": """
      mutation M($input: MergeTicketsInput!) {
        result: mergeTickets(input: $input) { userErrors { code path } }
      }
    """,
    "CreateTicketActivitiesInput": """
      mutation M($input: CreateTicketActivitiesInput!) {
        result: createTicketActivities(input: $input) { userErrors { code path } }
      }
    """,
    "UpdateTicketActivitiesInput": """
      mutation M($input: UpdateTicketActivitiesInput!) {
        result: updateTicketActivities(input: $input) { userErrors { code path } }
      }
    """,
    "UpsertActorsInput": """
      mutation M($input: UpsertActorsInput!) {
        result: upsertActors(input: $input) {
          actors { name avatarUrl } userErrors { code path }
        }
      }
    """,
}
NAMED = {"name": "Ada", "avatarUrl": "https://pictures.test/ada.png"}
LIST = """
query L($ticketId: ID!, $filter: TicketActivityFilter, $orderBy: TicketActivityOrder) {
  ticket(id: $ticketId) {
    activities(filter: $filter, orderBy: $orderBy) { nodes { activityType } }
  }
}
"""

# Null is no value of the type: the request is refused, and so is one without the field.
REQUIRED = {
    *(("CreateTicketActivityInput", name) for name in ("ticketId", "activityType")),
    *(("UpdateTicketActivityInput", name) for name in ("ticketId", "activityId")),
    *(("DeleteTicketActivityInput", name) for name in ("ticketId", "activityId")),
    *(("MergeTicketsInput", name) for name in ("sourceId", "targetId")),
    *(("RedactTicketActivityInput", name) for name in ("ticketId", "activityId", "reason")),
    *(("RestoreTicketActivityInput", name) for name in ("ticketId", "activityId", "toVersion")),
    ("CreateTicketActivitiesInput", "items"),
    ("UpdateTicketActivitiesInput", "items"),
    ("UpsertActorsInput", "actors"),
    ("ActorInput", "id"),
}
# Null is refused as above; left out, the field has the default that the schema states.
DEFAULTED = {
    ("CreateTicketInput", "metadata"): {},
    ("CreateTicketActivityInput", "metadata"): {},
    ("CreateTicketActivityInput", "isPrivate"): False,
    ("CreateTicketActivityInput", "allowMerged"): False,
    ("UpdateTicketActivityInput", "allowMerged"): False,
    ("DeleteTicketActivityInput", "allowMerged"): False,
    ("RestoreTicketActivityInput", "allowMerged"): False,
    ("TicketActivityOrder", "field"): "CREATED_AT",
    ("TicketActivityOrder", "direction"): "ASC",
}
# Null means nothing: a user error, or INVALID_INPUT of the listing.
WITHOUT_NULL = {
    *(("CreateTicketInput", name) for name in ("id", "createdAt", "updatedAt")),
    *(("CreateTicketActivityInput", name) for name in ("id", "createdAt", "updatedAt")),
    *(
        ("UpdateTicketActivityInput", name)
        for name in ("metadata", "metadataPatch", "isPrivate", "expectedVersion")
    ),
    ("DeleteTicketActivityInput", "expectedVersion"),
    ("RestoreTicketActivityInput", "expectedVersion"),
    *(("TicketActivityFilter", name) for name in ("types", "isPrivate", "since", "until", "text")),
}
# Null is a value: what it leads to, and what absence leads to.
WITH_NULL: dict[tuple[str, str], tuple[Any, Any]] = {
    ("CreateTicketInput", "message"): (None, None),
    ("CreateTicketInput", "actorId"): (None, str(ACTOR)),
    ("CreateTicketActivityInput", "actorId"): (None, str(ACTOR)),
    ("CreateTicketActivityInput", "message"): (None, None),
    ("CreateTicketActivityInput", "documentId"): (None, None),
    ("UpdateTicketActivityInput", "message"): (None, "before"),
    **{("ActorInput", name): (None, value) for name, value in NAMED.items()},
    ("TicketActivityFilter", "actorId"): ([], ["TICKET_CREATED", "COMMENT"]),
}


@pytest.fixture
async def author(service: Service) -> Client:
    return await service.client(*Scope, actor_id=ACTOR)


@pytest.fixture
async def entry(service: Service, author: Client) -> JSON:
    ticket_id = await author.create_ticket()
    service.clock.advance(seconds=1)
    await author.mutate(MUTATIONS["UpsertActorsInput"], actors=[{"id": str(ACTOR), **NAMED}])
    return await author.create_activity(ticket_id, message="before")


def complete(entry: JSON, input_: str) -> JSON:
    """Return the required fields of an input, and what makes it valid."""
    named = {"ticketId": entry["ticketId"], "activityId": entry["id"]}
    return {
        "CreateTicketInput": {},
        "CreateTicketActivityInput": {"ticketId": entry["ticketId"], "activityType": "COMMENT"},
        "UpdateTicketActivityInput": named,
        "DeleteTicketActivityInput": named,
        "RedactTicketActivityInput": named | {"reason": "A reason."},
        "RestoreTicketActivityInput": named | {"toVersion": 1},
        "MergeTicketsInput": {"sourceId": entry["ticketId"], "targetId": entry["ticketId"]},
        "CreateTicketActivitiesInput": {"items": []},
        "UpdateTicketActivitiesInput": {"items": []},
        "UpsertActorsInput": {"actors": []},
        "ActorInput": {"id": str(ACTOR)},
    }.get(input_, {})


async def send(author: Client, entry: JSON, input_: str, fields: JSON) -> JSON:
    if input_ == "ActorInput":
        return await send(author, entry, "UpsertActorsInput", {"actors": [fields]})
    if input_ in MUTATIONS:
        return await author.graphql(MUTATIONS[input_], input=fields)
    argument = "filter" if input_ == "TicketActivityFilter" else "orderBy"
    return await author.graphql(LIST, ticketId=entry["ticketId"], **{argument: fields})


def value_of(document: JSON, field: str) -> Any:
    """Return the field of the entry that a mutation answers, or the types that are listed."""
    assert "errors" not in document, document
    if payload := document["data"].get("result"):
        assert payload["userErrors"] == []
        if "actors" in payload:
            return payload["actors"][0][field]
        if field == "allowMerged":  # what it does is tested in tests/test_merges.py
            return False
        return payload["ticketActivity"][field]
    return [node["activityType"] for node in document["data"]["ticket"]["activities"]["nodes"]]


def test_every_field_of_every_input_is_looked_at_here() -> None:
    inputs = {
        (name, field)
        for name, kind in build_schema(print_schema()).type_map.items()
        if isinstance(kind, GraphQLInputObjectType)
        for field in kind.fields
    }

    assert REQUIRED | set(DEFAULTED) | WITHOUT_NULL | set(WITH_NULL) == inputs


@pytest.mark.parametrize(("input_", "field"), sorted(REQUIRED))
async def test_what_is_required_is_refused_absent_and_null(
    author: Client, entry: JSON, input_: str, field: str
) -> None:
    fields = complete(entry, input_)
    absent = {name: value for name, value in fields.items() if name != field}

    for sent in (absent, fields | {field: None}):
        [error] = (await send(author, entry, input_, sent))["errors"]
        assert error["extensions"] == {"code": "INVALID_INPUT"}
        assert field in error["message"]


@pytest.mark.parametrize(("input_", "field"), sorted(DEFAULTED))
async def test_what_has_a_default_takes_it_when_absent_and_refuses_null(
    author: Client, entry: JSON, input_: str, field: str
) -> None:
    default, fields = DEFAULTED[input_, field], complete(entry, input_)

    absent = await send(author, entry, input_, fields)
    given = await send(author, entry, input_, fields | {field: default})
    [error] = (await send(author, entry, input_, fields | {field: None}))["errors"]

    assert value_of(absent, field) == value_of(given, field)
    assert value_of(absent, field) in (default, ["TICKET_CREATED", "COMMENT"])
    assert error["extensions"] == {"code": "INVALID_INPUT"}
    assert field in error["message"]


@pytest.mark.parametrize(("input_", "field"), sorted(WITHOUT_NULL))
async def test_where_null_means_nothing_it_is_refused_by_name(
    author: Client, entry: JSON, input_: str, field: str
) -> None:
    fields = complete(entry, input_)

    null = await send(author, entry, input_, fields | {field: None})
    absent = await send(author, entry, input_, fields)

    if input_ in MUTATIONS:
        [error] = null["data"]["result"]["userErrors"]
        assert error == {"code": "INVALID_INPUT", "path": ["input", field]}
        assert absent["data"]["result"]["userErrors"] == []
    else:
        [error] = null["errors"]
        assert error["extensions"] == {"code": "INVALID_INPUT"}
        assert error["message"].startswith(f"{field} must not be null")
        assert value_of(absent, field) == ["TICKET_CREATED", "COMMENT"]


@pytest.mark.parametrize(("input_", "field"), sorted(WITH_NULL))
async def test_where_null_means_something_it_is_not_absence(
    author: Client, entry: JSON, input_: str, field: str
) -> None:
    fields = complete(entry, input_)

    absent = value_of(await send(author, entry, input_, fields), field)
    null = value_of(await send(author, entry, input_, fields | {field: None}), field)

    assert (null, absent) == WITH_NULL[input_, field]
