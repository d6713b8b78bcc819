"""No statement of a request reads a whole table."""

from uuid import uuid4

import pytest

from app.auth import Scope
from tests.support.service import (
    ACTIVITY,
    CREATE_ACTIVITY,
    CREATE_TICKET,
    MERGE,
    UPDATE,
    Service,
)
from tests.support.statements import is_found_by, scans, statements

pytestmark = pytest.mark.plans

MERGED_TIMELINE = """
query Merged($id: ID!) {
  ticket(id: $id) {
    activities(includeMerged: true, first: 2) {
      nodes { id } totalCount pageInfo { hasNextPage hasPreviousPage }
    }
  }
}
"""
DELETE = """
mutation Delete($input: DeleteTicketActivityInput!) {
  deleteTicketActivity(input: $input) { userErrors { code } }
}
"""

READ = """
query Read($id: ID!, $ids: [ID!]!) {
  nodes(ids: $ids) { id }
  ticket(id: $id) {
    mergedInto { id }
    activities(first: 5, filter: {types: [COMMENT]}) {
      totalCount filteredCount pageInfo { hasPreviousPage hasNextPage }
      nodes { id revisions { totalCount nodes { version } } ticket { id } }
    }
  }
  ticketActivityChanges(ticketId: $id, first: 5) { nodes { cursor } }
}
"""


async def test_a_count_reads_an_index_and_nothing_else(service: Service) -> None:
    author = await service.client()
    ticket_id = await author.create_ticket()

    with statements() as executed:
        await author.graphql(
            "query Count($id: ID!) { ticket(id: $id) { activities { totalCount } } }", id=ticket_id
        )

    [(statement, parameters)] = [one for one in executed if "count(" in one[0]]
    plan = await service.explain(statement, parameters)
    assert is_found_by(plan, "ix_ticket_activity_created", alone=True), plan


async def test_every_statement_searches_by_an_index(service: Service) -> None:
    author = await service.client(*Scope)
    ticket_id, other_id = await author.create_ticket(), await author.create_ticket()

    with statements() as executed:
        entry = await author.create_activity(ticket_id, id=str(uuid4()), message="one")
        again = {"ticketId": ticket_id, "activityType": "COMMENT", "message": "one"}
        await author.mutate(CREATE_ACTIVITY, id=entry["id"], **again)
        await author.mutate(CREATE_TICKET, id=ticket_id)
        await author.mutate(UPDATE, ticketId=ticket_id, activityId=entry["id"], message="two")
        await author.graphql(ACTIVITY, ticketId=ticket_id, activityId=entry["id"])
        document = await author.graphql(READ, id=ticket_id, ids=[ticket_id, entry["id"]])
        await author.get(ticket_id, entry["id"])
        await author.mutate(DELETE, ticketId=ticket_id, activityId=entry["id"])
        await author.mutate(MERGE, sourceId=ticket_id, targetId=other_id)
        merged = await author.graphql(MERGED_TIMELINE, id=other_id)

    assert "errors" not in document, document
    assert "errors" not in merged, merged
    plans = {
        statement: await service.explain(statement, parameters)
        for statement, parameters in executed
        if not isinstance(parameters, list)
        # The latter two where a shared read is ended, on a busy machine.
        and not statement.startswith(("BEGIN", "INSERT", "ROLLBACK", "SET"))
    }
    assert len(plans) > 10
    assert {statement: scans(plan) for statement, plan in plans.items() if scans(plan)} == {}
