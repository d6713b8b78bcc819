"""Tickets of Zendesk and Zammad, read from what their APIs answer.

The samples are written from the public documentation of those APIs.
"""

import asyncio
import json
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import pytest

from app.auth import Scope
from app.settings import Settings
from tests.support.service import JSON, start
from tests.test_transfer import lines_of, name_database, refusal, run, write_lines

Output = pytest.CaptureFixture[str]
Environment = pytest.MonkeyPatch

ZENDESK = "https://example.zendesk.com"
ZAMMAD = "https://zammad.example.com"

ZENDESK_TICKET: JSON = {
    "ticket": {
        "id": 47,
        "url": f"{ZENDESK}/api/v2/tickets/47.json",
        "subject": "The printer is on fire",
        "created_at": "2026-03-01T09:00:00Z",
        "submitter_id": 7,
        "requester_id": 7,
        "status": "open",
        "priority": "high",
        "type": "incident",
        "tags": ["printer"],
        "via": {"channel": "email"},
    },
    "comments": [
        {
            "id": 1001,
            "type": "Comment",
            "author_id": 7,
            "body": "Smoke comes out of it.",
            "html_body": "<p>Smoke comes out of it.</p>",
            "public": True,
            "created_at": "2026-03-01T09:00:00Z",
            "via": {"channel": "email"},
            "attachments": [
                {
                    "id": 501,
                    "file_name": "smoke.jpg",
                    "content_type": "image/jpeg",
                    "size": 2532,
                    "content_url": f"{ZENDESK}/attachments/smoke.jpg",
                }
            ],
        },
        {
            "id": 1003,
            "type": "Comment",
            "author_id": 8,
            "body": "Is this customer insured?",
            "public": False,
            "created_at": "2026-03-01T09:20:00Z",
            "attachments": [],
        },
    ],
    "audits": [
        {
            "id": 2001,
            "ticket_id": 47,
            "author_id": -1,
            "created_at": "2026-03-01T09:10:00Z",
            "events": [
                {
                    "id": 3001,
                    "type": "Change",
                    "field_name": "priority",
                    "previous_value": "normal",
                    "value": "high",
                },
                {"id": 3002, "type": "Notification", "subject": "…", "body": "…"},
            ],
        }
    ],
    "users": [
        {
            "id": 7,
            "name": "Ada Lovelace",
            "updated_at": "2026-02-01T00:00:00Z",
            "photo": {"content_url": f"{ZENDESK}/photos/ada.png"},
        },
        {"id": 8, "name": "Grace Hopper", "photo": {"content_url": "javascript:alert(1)"}},
    ],
}

ZAMMAD_TICKET: JSON = {
    "ticket": {
        "id": 3,
        "number": "22003",
        "title": "No network",
        "created_at": "2026-03-02T08:00:00.119Z",
        "created_by_id": 4,
        "customer_id": 4,
    },
    "articles": [
        {
            "id": 31,
            "ticket_id": 3,
            "from": "Bob Smith",
            "subject": "",
            "body": "</style><div>It is <b>down</b>.<br/>Since &lt; 9.</div><style>b {}</style>"
            "<p>Bob</p>",
            "content_type": "text/html",
            "type": "web",
            "sender": "Customer",
            "internal": False,
            "created_by_id": 4,
            "created_at": "2026-03-02T08:00:00.119Z",
            "attachments": [
                {
                    "id": 123,
                    "filename": "log.txt",
                    "size": "12",
                    "preferences": {"Mime-Type": "text/plain"},
                }
            ],
        },
        {
            "id": 32,
            "body": "Rack 4 < rack 5",
            "content_type": "text/plain",
            "type": "note",
            "sender": "Agent",
            "internal": True,
            "created_by_id": 1,
            "origin_by_id": 5,
            "created_at": "2026-03-02T08:10:00.000Z",
        },
    ],
    "history": [
        {
            "id": 90,
            "object": "Ticket",
            "type": "created",
            "created_by_id": 4,
            "created_at": "2026-03-02T08:00:00.119Z",
        },
        {
            "id": 91,
            "object": "Ticket",
            "type": "updated",
            "attribute": "priority",
            "value_from": "2 normal",
            "value_to": "3 high",
            "created_by_id": 1,
            "created_at": "2026-03-02T08:05:00.000Z",
        },
    ],
    "assets": {
        "User": {
            "1": {"id": 1, "firstname": "-", "lastname": ""},
            "4": {"id": 4, "firstname": "Bob", "lastname": "Smith"},
            "5": {"id": 5, "firstname": "Eve\n", "lastname": ""},
        }
    },
}

TIMELINE = """
query($id: ID!) {
  ticket(id: $id) {
    createdAt
    activities(first: 20) {
      nodes { activityType message isPrivate createdAt actor { name } metadata version }
    }
  }
}
"""


async def timeline(settings: Settings, namespace: str, key: str, *scopes: Scope) -> list[JSON]:
    """Return the entries of a ticket of another system as a reader of this one sees them."""
    id_ = uuid5(uuid5(NAMESPACE_URL, namespace), key)
    async with start(settings) as service:
        reader = await service.client(Scope.READ, *scopes)
        document = await reader.graphql(TIMELINE, id=str(id_))
    assert "errors" not in document, document
    nodes: list[JSON] = document["data"]["ticket"]["activities"]["nodes"]
    return nodes


def shown(nodes: list[JSON]) -> list[tuple[Any, ...]]:
    return [
        (
            node["activityType"],
            node["message"],
            node["isPrivate"],
            node["createdAt"],
            node["actor"] and node["actor"]["name"],
        )
        for node in nodes
    ]


def import_from(file: Path, format_: str, namespace: str) -> list[str]:
    return ["import", str(file), "--format", format_, "--namespace", namespace]


async def test_a_zendesk_ticket_is_read_with_names_times_and_privacy(
    settings: Settings, tmp_path: Path, monkeypatch: Environment
) -> None:
    name_database(monkeypatch, settings.database_url)
    file = write_lines(tmp_path / "zendesk.jsonl", [ZENDESK_TICKET])

    for _ in range(2):  # the second time changes nothing
        await asyncio.to_thread(run, *import_from(file, "zendesk", ZENDESK))
    nodes = await timeline(settings, ZENDESK, "ticket/47", Scope.PRIVATE)
    public = await timeline(settings, ZENDESK, "ticket/47")

    created = "2026-03-01T09:00:00.000Z"
    expected = [
        ("TICKET_CREATED", "The printer is on fire", False, created, "Ada Lovelace"),
        ("COMMENT", "Smoke comes out of it.", False, created, "Ada Lovelace"),
        ("DOCUMENT_UPLOAD", "smoke.jpg", False, created, "Ada Lovelace"),
        ("FIELD_CHANGE", None, True, "2026-03-01T09:10:00.000Z", None),
        ("COMMENT", "Is this customer insured?", True, "2026-03-01T09:20:00.000Z", "Grace Hopper"),
    ]
    assert sorted(shown(nodes), key=str) == sorted(expected, key=str)
    assert sorted(shown(public), key=str) == sorted(expected[:3], key=str)
    [change] = [node for node in nodes if node["activityType"] == "FIELD_CHANGE"]
    assert change["metadata"] == {
        "zendeskId": 3001,
        "field": "priority",
        "from": "normal",
        "to": "high",
    }
    [document] = [node for node in nodes if node["activityType"] == "DOCUMENT_UPLOAD"]
    assert document["metadata"]["bytes"] == 2532


async def test_a_zammad_ticket_is_read_with_names_times_and_privacy(
    settings: Settings, tmp_path: Path, monkeypatch: Environment
) -> None:
    name_database(monkeypatch, settings.database_url)
    file = write_lines(tmp_path / "zammad.jsonl", [ZAMMAD_TICKET])

    await asyncio.to_thread(run, *import_from(file, "zammad", ZAMMAD))
    nodes = await timeline(settings, ZAMMAD, "ticket/3", Scope.PRIVATE)

    created = "2026-03-02T08:00:00.119Z"
    expected = [
        ("TICKET_CREATED", "No network", False, created, "Bob Smith"),
        ("COMMENT", "It is down.\nSince < 9.\nBob", False, created, "Bob Smith"),
        ("DOCUMENT_UPLOAD", "log.txt", False, created, "Bob Smith"),
        ("FIELD_CHANGE", None, True, "2026-03-02T08:05:00.000Z", None),
        ("COMMENT", "Rack 4 < rack 5", True, "2026-03-02T08:10:00.000Z", "Eve"),
    ]
    assert sorted(shown(nodes), key=str) == sorted(expected, key=str)


def without(record: JSON, *path: str | int) -> JSON:
    copy: JSON = json.loads(json.dumps(record))
    inner: Any = copy
    for step in path[:-1]:
        inner = inner[step]
    del inner[path[-1]]
    return copy


def changed(record: JSON, value: object, *path: str | int) -> JSON:
    copy: JSON = json.loads(json.dumps(record))
    inner: Any = copy
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    return copy


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (without(ZENDESK_TICKET, "comments", 0, "public"), "comments.0.public: Field required"),
        (changed(ZENDESK_TICKET, "soon", "ticket", "created_at"), "ticket.created_at: "),
        (changed(ZENDESK_TICKET, "a\0", "comments", 1, "body"), "ticket/47, comment/1003: "),
        (
            changed(ZENDESK_TICKET, 2**70, "audits", 0, "events", 0, "value"),
            "ticket/47, event/3001",
        ),
        ({"ticket": {}}, "ticket.id: Field required"),
    ],
)
async def test_a_wrong_record_is_left_out_whole_and_named(
    settings: Settings,
    tmp_path: Path,
    monkeypatch: Environment,
    capsys: Output,
    record: JSON,
    said: str,
) -> None:
    name_database(monkeypatch, settings.database_url)
    other = changed(ZENDESK_TICKET, 48, "ticket", "id")
    file = write_lines(tmp_path / "wrong.jsonl", [record, {**other, "comments": [], "audits": []}])

    command = [*import_from(file, "zendesk", ZENDESK), "--on-error", "continue"]
    first, last = await asyncio.to_thread(refusal, capsys, *command)

    assert first.startswith(f"ticket-activity: line 1: {said}")
    assert last == "ticket-activity: 1 lines were wrong, and are left out."
    exported = tmp_path / "export.jsonl"
    await asyncio.to_thread(run, "export", str(exported))
    kinds = [line["kind"] for line in lines_of(exported)]
    assert kinds == ["header", "ticket", "entry", "change", "actor", "actor", "end"]


async def test_a_ticket_that_has_gone_on_in_the_other_system_is_refused_whole(
    settings: Settings, tmp_path: Path, monkeypatch: Environment, capsys: Output
) -> None:
    name_database(monkeypatch, settings.database_url)
    before = {**ZENDESK_TICKET, "comments": ZENDESK_TICKET["comments"][:1]}
    await asyncio.to_thread(
        run, *import_from(write_lines(tmp_path / "a.jsonl", [before]), "zendesk", ZENDESK)
    )
    exported = tmp_path / "export.jsonl"
    await asyncio.to_thread(run, "export", str(exported))

    file = write_lines(tmp_path / "b.jsonl", [ZENDESK_TICKET])
    [line] = await asyncio.to_thread(refusal, capsys, *import_from(file, "zendesk", ZENDESK))
    again = tmp_path / "again.jsonl"
    await asyncio.to_thread(run, "export", str(again))

    assert "line 1: there is another ticket in its place already" in line
    assert lines_of(again)[1:] == lines_of(exported)[1:]


def test_the_address_of_the_other_system_must_be_given(capsys: Output, tmp_path: Path) -> None:
    [line] = refusal(capsys, "import", str(tmp_path / "x"), "--format", "zammad")

    assert "--namespace is the address of the other system" in line
