"""What was acknowledged is there after the process was killed in the middle of its writes."""

import asyncio
import signal

import httpx2

from app.demo import PRINTER
from tests.support.process import Process, serve

WRITERS = 8
ACKNOWLEDGED_BEFORE_THE_KILL = 200

CREATE = """
mutation($input: CreateTicketActivityInput!) {
  createTicketActivity(input: $input) { ticketActivity { id } userErrors { code } }
}
"""


async def post(http: httpx2.AsyncClient, message: str) -> str:
    response = await http.post(
        "/graphql",
        json={
            "query": CREATE,
            "variables": {
                "input": {"ticketId": str(PRINTER), "activityType": "COMMENT", "message": message}
            },
        },
    )
    return str(response.json()["data"]["createTicketActivity"]["ticketActivity"]["id"])


async def write(
    http: httpx2.AsyncClient, name: str, acknowledged: dict[str, str], enough: asyncio.Event
) -> None:
    """Create an entry and update it, again and again, until the service is gone."""
    entry = await post(http, name)
    for number in range(10_000):
        message = f"{name} {number}"
        try:
            response = await http.put(
                f"/v1/crm/tickets/{PRINTER}/activity/{entry}", json={"message": message}
            )
        except httpx2.HTTPError:
            return
        assert response.status_code == 200
        acknowledged[entry] = message
        if number * WRITERS >= ACKNOWLEDGED_BEFORE_THE_KILL:
            enough.set()


def client(process: Process) -> httpx2.AsyncClient:
    headers = {"Authorization": f"Bearer {process.token}"}
    return httpx2.AsyncClient(base_url=process.origin, headers=headers, timeout=30)


async def test_acknowledged_updates_survive_a_kill(database_url: str) -> None:
    acknowledged: dict[str, str] = {}
    enough = asyncio.Event()
    with serve(database_url) as process:
        async with client(process) as http, asyncio.TaskGroup() as writers:
            for number in range(WRITERS):
                writers.create_task(write(http, f"writer {number}", acknowledged, enough))
            await enough.wait()
            # The shell replaced itself by the server, so this is the server's own process.
            assert process.end(signal.SIGKILL) == -signal.SIGKILL

    with serve(database_url) as process:
        async with client(process) as http:
            for entry, message in acknowledged.items():
                response = await http.get(f"/v1/crm/tickets/{PRINTER}/activity/{entry}")
                found = response.json()["message"]
                # A write that was not acknowledged may be there or not: it follows the last one.
                assert int(found.split()[-1]) - int(message.split()[-1]) in (0, 1)

    assert len(acknowledged) == WRITERS
