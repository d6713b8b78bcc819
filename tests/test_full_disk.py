"""A disk that is full, and then is not: a file system of one process, a few MiB in memory."""

from pathlib import Path

import httpx2

from app.demo import COMMENT, PRINTER
from tests.support.disks import fill, on_small_disk, seen_by
from tests.support.process import serve

URL = f"/v1/crm/tickets/{PRINTER}/activity/{COMMENT}"
UPDATE = """mutation($input: UpdateTicketActivityInput!) {
  updateTicketActivity(input: $input) { ticketActivity { version } userErrors { code } }
}"""


def put_until_refused(http: httpx2.Client) -> tuple[str, httpx2.Response]:
    """Write until a write is refused; return the last message written, and the refusal."""
    last = ""
    for number in range(100):  # the journal has room for a few
        message = str(number % 10) * 60_000
        response = http.put(URL, json={"message": message})
        if response.status_code != 200:
            return last, response
        last = message
    raise AssertionError("the disk is never full")


def test_a_full_disk_refuses_writes_answers_reads_and_passes(tmp_path: Path) -> None:
    with serve(tmp_path / "tickets.db", within=on_small_disk(tmp_path)) as process:
        ballast = seen_by(process, tmp_path / "ballast")
        headers = {"Authorization": f"Bearer {process.token}"}
        with httpx2.Client(base_url=process.origin, headers=headers) as http:
            before = (http.put(URL, json={"message": "before"})).json()
            fill(ballast)

            last, refused = put_until_refused(http)
            input_ = {"ticketId": str(PRINTER), "activityId": str(COMMENT), "message": "x" * 60_000}
            mutation = http.post("/graphql", json={"query": UPDATE, "variables": {"input": input_}})
            read = http.get(URL)
            ballast.unlink()
            after = http.put(URL, json={"message": "after"})

    assert (refused.status_code, refused.json()["code"]) == (503, "STORAGE_FULL")
    assert refused.headers["Retry-After"] == "30"
    assert "disk" in refused.json()["detail"]
    assert [error["extensions"]["code"] for error in mutation.json()["errors"]] == ["STORAGE_FULL"]
    assert (read.status_code, read.json()["message"]) == (200, last or before["message"])
    assert (after.status_code, after.json()["message"]) == (200, "after")
