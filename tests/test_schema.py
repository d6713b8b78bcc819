"""The schema as its users read it: committed, described throughout, under the agreed names."""

import re
from collections.abc import Iterator

import pytest
from graphql import (
    EnumTypeDefinitionNode,
    GraphQLArgument,
    GraphQLEnumType,
    GraphQLField,
    GraphQLInputField,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLNamedType,
    GraphQLObjectType,
    InputObjectTypeDefinitionNode,
    ObjectTypeDefinitionNode,
    ScalarTypeDefinitionNode,
    TypeDefinitionNode,
    build_schema,
    is_introspection_type,
    is_specified_directive,
    is_specified_scalar_type,
    parse,
    print_ast,
)

from app import errors
from app.graphql.schema import print_schema
from app.graphql_server.errors import OPERATION_NOT_RESOLVED, PARSE_FAILED, VALIDATION_FAILED
from app.settings import Settings
from tests.support.process import ROOT
from tests.support.service import start

pytestmark = pytest.mark.any_engine

SCHEMA = build_schema(print_schema())

# What front ends were promised. A type may have more fields, and no other arguments.
AGREED = parse("""
scalar UUID
scalar DateTime
scalar JSONObject

enum ActivityType {
  COMMENT VIEW FIELD_CHANGE DOCUMENT_UPLOAD TICKET_CREATED MERGED_INTO MERGED_FROM
}
enum CannotUpdateReason { MISSING_SCOPE NOT_AUTHOR SYSTEM_ENTRY }
enum ChangeType { ADDED UPDATED REMOVED }
enum UserErrorCode {
  NOT_FOUND FORBIDDEN VERSION_CONFLICT INVALID_INPUT ID_TAKEN TICKET_MERGED
}

type Actor { id: ID! name: String avatarUrl: String }

type Query {
  viewer: Viewer!
  node(id: ID!): Node
  nodes(ids: [ID!]!): [Node]!
  ticket(id: ID!): Ticket
  ticketActivity(ticketId: ID!, activityId: ID!): TicketActivity
  ticketActivityChanges(
    ticketId: ID!, after: String, first: Int
  ): TicketActivityChangeConnection!
}

type Viewer { id: ID!  actorId: UUID!  name: String!  scopes: [Scope!]! }

type Ticket implements Node {
  id: ID!
  createdAt: DateTime!
  mergedInto: Ticket
  activities(
    first: Int, after: String, last: Int, before: String,
    filter: TicketActivityFilter, orderBy: TicketActivityOrder, includeMerged: Boolean!
  ): TicketActivityConnection!
}

type TicketActivity implements Node {
  id: ID!
  ticketId: ID!
  ticket: Ticket!
  activityType: ActivityType!
  isPrivate: Boolean!
  createdAt: DateTime!
  actorId: UUID
  message: String
  metadata: JSONObject!
  documentId: UUID
  version: Int!
  updatedAt: DateTime!
  updatedById: UUID
  isEdited: Boolean!
  viewerCanUpdate: Boolean!
  viewerCanDelete: Boolean!
  viewerCannotUpdateReasons: [CannotUpdateReason!]!
  revisions(first: Int, after: String): TicketActivityRevisionConnection!
}

type TicketActivityConnection {
  edges: [TicketActivityEdge!]!
  nodes: [TicketActivity!]!
  pageInfo: PageInfo!
  totalCount: Int!
  filteredCount: Int!
}

type TicketActivityRevision {
  id: ID!
  version: Int!
  changeType: ChangeType!
  changedAt: DateTime!
  changedById: UUID
  message: String
  metadata: JSONObject!
  isPrivate: Boolean!
}

input TicketActivityFilter {
  types: [ActivityType!]
  actorId: UUID
  isPrivate: Boolean
  since: DateTime
  until: DateTime
  text: String
}

type Mutation {
  createTicket(input: CreateTicketInput!): CreateTicketPayload!
  createTicketActivity(input: CreateTicketActivityInput!): CreateTicketActivityPayload!
  updateTicketActivity(input: UpdateTicketActivityInput!): UpdateTicketActivityPayload!
  deleteTicketActivity(input: DeleteTicketActivityInput!): DeleteTicketActivityPayload!
  redactTicketActivity(input: RedactTicketActivityInput!): RedactTicketActivityPayload!
  restoreTicketActivity(input: RestoreTicketActivityInput!): RestoreTicketActivityPayload!
  createTicketActivities(input: CreateTicketActivitiesInput!): CreateTicketActivitiesPayload!
  updateTicketActivities(input: UpdateTicketActivitiesInput!): UpdateTicketActivitiesPayload!
  mergeTickets(input: MergeTicketsInput!): MergeTicketsPayload!
}

input CreateTicketInput { id: ID  message: String  metadata: JSONObject! }

input CreateTicketActivityInput {
  ticketId: ID!
  id: ID
  activityType: ActivityType!
  message: String
  metadata: JSONObject!
  isPrivate: Boolean!
  documentId: UUID
}

input UpdateTicketActivityInput {
  ticketId: ID!
  activityId: ID!
  message: String
  metadata: JSONObject
  metadataPatch: JSONObject
  isPrivate: Boolean
  expectedVersion: Int
}

type CreateTicketActivityPayload {
  ticketActivity: TicketActivity
  ticketActivityEdge(orderBy: TicketActivityOrder): TicketActivityEdge
  userErrors: [UserError!]!
}
type UpdateTicketActivityPayload {
  ticketActivity: TicketActivity
  ticketActivityEdge(orderBy: TicketActivityOrder): TicketActivityEdge
  userErrors: [UserError!]!
}
type DeleteTicketActivityPayload { deletedTicketActivityId: ID  userErrors: [UserError!]! }
type UserError {
  code: UserErrorCode!
  message: String!
  path: [String!]
  reasons: [CannotUpdateReason!]!
}

type Subscription {
  ticketActivityChanges(
    ticketId: ID!, after: String, filter: TicketActivityFilter
  ): TicketActivityChangesPayload!
}

type TicketActivityChangesPayload { cursor: String!  change: TicketActivityChange }

type TicketActivityChange {
  cursor: String!
  changeType: ChangeType!
  activityId: ID!
  removedTicketActivityId: ID
  deletedTicketActivityId: ID
  ticketActivityEdge(orderBy: TicketActivityOrder): TicketActivityEdge
  ticket: Ticket!
  changedAt: DateTime!
  changedById: UUID
  ticketActivity: TicketActivity
}
""")


def described() -> Iterator[tuple[str, str | None]]:
    """Everything that can have a description, by its name in the schema."""
    for name, kind in SCHEMA.type_map.items():
        if not is_introspection_type(kind) and not is_specified_scalar_type(kind):
            yield name, kind.description
            yield from _members(name, kind)
    for directive in SCHEMA.directives:
        if not is_specified_directive(directive):
            yield f"@{directive.name}", directive.description
            yield from _arguments(f"@{directive.name}", directive.args)


def _members(owner: str, kind: GraphQLNamedType) -> Iterator[tuple[str, str | None]]:
    if isinstance(kind, GraphQLEnumType):
        for name, value in kind.values.items():
            yield f"{owner}.{name}", value.description
    if isinstance(kind, GraphQLInputObjectType):
        for name, member in kind.fields.items():
            yield f"{owner}.{name}", member.description
    if isinstance(kind, GraphQLObjectType | GraphQLInterfaceType):
        for name, field in kind.fields.items():
            yield f"{owner}.{name}", field.description
            yield from _arguments(f"{owner}.{name}", field.args)


def _arguments(
    owner: str, arguments: dict[str, GraphQLArgument]
) -> Iterator[tuple[str, str | None]]:
    for name, argument in arguments.items():
        yield f"{owner}({name}:)", argument.description


def agreed_types() -> list[TypeDefinitionNode]:
    return [node for node in AGREED.definitions if isinstance(node, TypeDefinitionNode)]


def signature(field: GraphQLField | GraphQLInputField) -> tuple[str, dict[str, str]]:
    """The type of a field and those of its arguments."""
    arguments = field.args if isinstance(field, GraphQLField) else {}
    return str(field.type), {name: str(one.type) for name, one in arguments.items()}


def agreed_signatures(
    node: ObjectTypeDefinitionNode | InputObjectTypeDefinitionNode,
) -> dict[str, tuple[str, dict[str, str]]]:
    return {
        field.name.value: (
            print_ast(field.type),
            {
                one.name.value: print_ast(one.type)
                for one in getattr(field, "arguments", None) or ()
            },
        )
        for field in node.fields or ()
    }


def test_the_committed_schema_is_what_the_code_says() -> None:
    assert (ROOT / "schema.graphql").read_text("utf-8") == print_schema()


def test_everything_has_a_description() -> None:
    missing = [name for name, description in described() if not (description or "").strip()]

    assert missing == []


@pytest.mark.parametrize("node", agreed_types(), ids=lambda node: node.name.value)
def test_the_agreed_names_and_types_exist(node: TypeDefinitionNode) -> None:
    kind = SCHEMA.type_map.get(node.name.value)

    assert kind, "there is no such type"
    if isinstance(node, EnumTypeDefinitionNode):
        assert isinstance(kind, GraphQLEnumType)
        assert list(kind.values) == [value.name.value for value in node.values or ()]
    elif isinstance(node, ObjectTypeDefinitionNode | InputObjectTypeDefinitionNode):
        assert isinstance(kind, GraphQLObjectType | GraphQLInputObjectType)
        agreed = agreed_signatures(node)
        fields = {name: signature(field) for name, field in kind.fields.items()}
        assert {name: fields.get(name) for name in agreed} == agreed
        interfaces = {one.name.value for one in getattr(node, "interfaces", None) or ()}
        assert interfaces <= {one.name for one in getattr(kind, "interfaces", ())}
    else:
        assert isinstance(node, ScalarTypeDefinitionNode)


def test_every_payload_has_user_errors() -> None:
    mutation = SCHEMA.mutation_type
    assert mutation

    payloads = {SCHEMA.type_map[str(field.type).strip("!")] for field in mutation.fields.values()}

    for payload in payloads:
        assert isinstance(payload, GraphQLObjectType)
        assert str(payload.fields["userErrors"].type) == "[UserError!]!"


# Those that a client never gets as a GraphQL error: problem documents, and outcomes in userErrors.
ELSEWHERE = {
    *("URI_TOO_LONG", "REQUEST_HEADER_FIELDS_TOO_LARGE", "CROSS_ORIGIN_REFUSED"),
    *("VERSION_CONFLICT", "ID_TAKEN", "TICKET_MERGED"),
}


def family(error: type[errors.ServiceError]) -> Iterator[str]:
    for kind in error.__subclasses__():
        if "code" in vars(kind):
            yield kind.code
        yield from family(kind)


def test_every_error_code_is_described_with_what_can_be_queried() -> None:
    language = {PARSE_FAILED, VALIDATION_FAILED, OPERATION_NOT_RESOLVED}
    query = SCHEMA.query_type
    assert query

    described_codes = set(re.findall(r"^- `(\w+)`: ", query.description or "", re.MULTILINE))

    assert described_codes == (set(family(errors.ServiceError)) | language) - ELSEWHERE


async def test_openapi_states_the_limits_that_are_set(settings: Settings) -> None:
    own = {"max_message_length": 77, "max_metadata_bytes": 88, "max_metadata_depth": 9}
    async with start(settings.model_copy(update=own)) as service:
        document = (await service.http.get("/openapi.json")).json()

    properties = document["components"]["schemas"]["TicketActivityUpdate"]["properties"]
    assert properties["message"]["maxLength"] == 77
    assert "88 bytes as JSON and 9 levels" in properties["metadata"]["description"]


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("message", "at most 65,536 characters, unless the service is set to another limit"),
        ("metadata", "at most 64 KiB as JSON and 32 levels deep, unless the service is set to"),
    ],
)
def test_the_schema_says_that_limits_are_settings(place: str, said: str) -> None:
    descriptions = dict(described())

    for owner in ("TicketActivity", "CreateTicketActivityInput", "UpdateTicketActivityInput"):
        assert said in (descriptions[f"{owner}.{place}"] or "")
