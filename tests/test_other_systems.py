"""Tickets of Zendesk and Zammad, read from what their APIs answer.

The samples are written from the public documentation of those APIs.
"""

import asyncio
import json
import math
import os
import re
import subprocess
from pathlib import Path
from shutil import which
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import pytest

from app.auth import Scope
from app.cli import main
from app.settings import Settings
from tests.support.cursors import seq_of
from tests.support.live import follow, receive, web_socket
from tests.support.service import JSON, Client, Service, start
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
            "body": f"Smoke: ![]({ZENDESK}/attachments/token/q3hx/?name=1.png)",
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
                    "content_url": f"{ZENDESK}/attachments/token/sv7xh/?name=smoke.jpg",
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
    # Without the token, with which anybody could read the file for good.
    smoke = f"Smoke: ![]({ZENDESK}/attachments/token/…/?name=1.png)"
    expected = [
        ("TICKET_CREATED", "The printer is on fire", False, created, "Ada Lovelace"),
        ("COMMENT", smoke, False, created, "Ada Lovelace"),
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
    assert document["metadata"] == {
        "zendeskId": 501,
        "name": "smoke.jpg",
        "contentType": "image/jpeg",
        "bytes": 2532,
    }


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


@pytest.mark.any_engine
@pytest.mark.parametrize(
    ("record", "said"),
    [
        (
            without(ZENDESK_TICKET, "comments", 0, "public"),
            "comments.0 (id 1001).public: Field required",
        ),
        (changed(ZENDESK_TICKET, "soon", "ticket", "created_at"), "ticket.created_at: "),
        (
            changed(ZENDESK_TICKET, "a\0", "comments", 1, "body"),
            "ticket/47, comment/1003: message holds the character NUL",
        ),
        (
            changed(ZENDESK_TICKET, "a" * 65_537, "comments", 1, "body"),
            "ticket/47, comment/1003: message has 65537 characters; the limit is 65536",
        ),
        (
            changed(ZENDESK_TICKET, ["a" * 65_536], "audits", 0, "events", 0, "value"),
            "ticket/47, event/3001: metadata takes more than 65536 bytes",
        ),
        (
            changed(ZENDESK_TICKET, 2**70, "audits", 0, "events", 0, "value"),
            "ticket/47, event/3001: metadata.to is an integer beyond 64 bits",
        ),
        (
            changed(ZENDESK_TICKET, "me", "audits", 0, "events", 1, "id"),
            "audits.0 (id 2001).events.1.id: ",
        ),
        (
            changed(ZENDESK_TICKET, {}, "users", 0, "photo", "content_url"),
            "users.0 (id 7).photo.content_url: ",
        ),
        (
            # Two members are wrong, of which the second is no JSON for most readers.
            changed({**ZENDESK_TICKET, "users": [{"id": math.nan}]}, "x", "comments", 0, "public"),
            "comments.0 (id 1001).public: ",
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
    assert last == "ticket-activity: 1 records were wrong, and are left out."
    exported = tmp_path / "export.jsonl"
    await asyncio.to_thread(run, "export", str(exported))
    kinds = [line["kind"] for line in lines_of(exported)]
    assert kinds == ["header", "ticket", "entry", "change", *3 * ["actor"], "end"]


LOOK = """
query($id: ID!) {
  ticket(id: $id) {
    mergedInto { id }
    activities(first: 20) {
      nodes {
        id activityType message createdAt
        revisions(first: 2) { nodes { changedAt recordedAt recordedBy { name } } }
      }
    }
  }
}
"""
DELETE = """
mutation($input: DeleteTicketActivityInput!) {
  deleteTicketActivity(input: $input) { userErrors { code } }
}
"""
MERGED: JSON = {
    "ticket": {"id": 48, "subject": "Smoke", "created_at": "2026-03-01T10:00:00Z"},
    "comments": [
        {
            "id": 1010,
            "author_id": 8,
            "body": "For us alone.",
            "public": False,
            "created_at": "2026-03-01T10:00:00Z",
        }
    ],
}
GONE_ON: JSON = {
    **ZENDESK_TICKET,
    "ticket": {**ZENDESK_TICKET["ticket"], "subject": "Two printers on fire", "status": "closed"},
    "comments": [
        *ZENDESK_TICKET["comments"],
        {
            "id": 1011,
            "author_id": 7,
            "body": "It burns no more.",
            "public": True,
            "created_at": "2026-03-01T11:00:00Z",
        },
    ],
    "audits": [
        *ZENDESK_TICKET["audits"],
        {
            "id": 2010,
            "author_id": 8,
            "created_at": "2026-03-01T10:30:00Z",
            "via": {"source": {"rel": "merge", "from": {"ticket_ids": [48, 99]}, "to": {}}},
            "events": [
                {
                    "id": 3010,
                    "type": "Change",
                    "field_name": "subject",
                    "previous_value": "The printer is on fire",
                    "value": "Two printers on fire",
                },
                {
                    "id": 3011,
                    "type": "FollowerChange",
                    "previous_followers": [],
                    "current_followers": ["eve@example.com"],
                    "via": {"channel": "rule", "source": {"from": {"title": "Tell Eve"}}},
                },
            ],
        },
    ],
}


def id_of(namespace: str, key: str) -> str:
    return str(uuid5(uuid5(NAMESPACE_URL, namespace), key))


async def look(client: Client, namespace: str, key: str) -> JSON:
    document = await client.graphql(LOOK, id=id_of(namespace, key))
    assert "errors" not in document, document
    found: JSON = document["data"]["ticket"]
    return found


@pytest.fixture
async def reader(settings: Settings, service: Service, monkeypatch: Environment) -> Client:
    """Serve the database that the commands import into."""
    name_database(monkeypatch, settings.database_url)
    return await service.client(*Scope)


async def load(
    capsys: Output, folder: Path, format_: str, namespace: str, *records: JSON
) -> list[str]:
    """Import records, those that are not wrong; return what was printed, errors first."""
    file = write_lines(folder / f"{format_}.jsonl", [*records])
    capsys.readouterr()
    command = [*import_from(file, format_, namespace), "--on-error", "continue"]
    await asyncio.to_thread(main, command)
    output = capsys.readouterr()
    said = (line.replace(f"{file}", "FILE") for line in (output.err + output.out).splitlines())
    return [line.removeprefix("ticket-activity: ") for line in said]


async def test_a_later_file_adds_what_is_new_after_what_was_done_here(
    service: Service, reader: Client, capsys: Output, tmp_path: Path
) -> None:
    first = await load(capsys, tmp_path, "zendesk", ZENDESK, ZENDESK_TICKET)
    ticket_id = id_of(ZENDESK, "ticket/47")
    await reader.create_activity(ticket_id, message="Written here.")

    later = await load(capsys, tmp_path, "zendesk", ZENDESK, GONE_ON, MERGED)
    history = await service.history(ticket_id)
    again = await load(capsys, tmp_path, "zendesk", ZENDESK, GONE_ON, MERGED)

    left_out = "Left out: 1 of events Notification, 1 of merges with a ticket that is not here."
    assert first == [
        "Read FILE: added 1 of ticket_created, 2 of comment, 1 of document_upload, "
        "1 of field_change; 0 were here already.",
        "Left out: 1 of events Notification.",
    ]
    assert later == [
        "Read FILE: added 2 of field_change, 2 of comment, 1 of ticket_created, 1 of merged_into, "
        "1 of merged_from; 5 were here already.",
        left_out,
    ]
    assert again == ["Read FILE: added nothing; 11 were here already.", left_out]
    assert await service.history(ticket_id) == history
    assert [message for *_, message in history][5:] == [
        "Written here.",
        *(None, None),
        "It burns no more.",
        None,
    ]


async def test_who_follows_a_ticket_is_told_what_a_later_file_adds_in_order(
    service: Service, origin: str, reader: Client, capsys: Output, tmp_path: Path
) -> None:
    await load(capsys, tmp_path, "zendesk", ZENDESK, ZENDESK_TICKET)
    ticket_id = id_of(ZENDESK, "ticket/47")
    before = await service.history(ticket_id)

    async with web_socket(origin, reader.token) as ws:
        await follow(ws, ticketId=ticket_id)
        await load(capsys, tmp_path, "zendesk", ZENDESK, GONE_ON, MERGED)
        added = (await service.history(ticket_id))[len(before) :]
        received = [await receive(ws) for _ in added]

    events = [message["payload"]["data"]["ticketActivityChanges"] for message in received]
    told = [(seq_of(service, ticket_id, it["cursor"]), it["change"]["activityId"]) for it in events]
    assert told == [(seq, id_) for seq, id_, _, _ in added]
    assert len(told) == 4


async def test_merged_tickets_are_merged_here_at_their_time_and_a_hidden_subject_stays_hidden(
    service: Service, reader: Client, capsys: Output, tmp_path: Path
) -> None:
    await load(capsys, tmp_path, "zendesk", ZENDESK, GONE_ON, MERGED)

    source = await look(reader, ZENDESK, "ticket/48")
    public = await look(await service.client(Scope.READ), ZENDESK, "ticket/48")

    assert source["mergedInto"] == {"id": id_of(ZENDESK, "ticket/47")}
    assert sorted(
        (node["activityType"], node["message"]) for node in public["activities"]["nodes"]
    ) == [
        ("MERGED_INTO", None),
        ("TICKET_CREATED", None),  # its first comment is private: customers do not know it
    ]
    [merge] = [n for n in source["activities"]["nodes"] if n["activityType"] == "MERGED_INTO"]
    [revision] = merge["revisions"]["nodes"]
    assert merge["createdAt"] == revision["changedAt"] == "2026-03-01T10:30:00.000Z"
    assert revision["recordedAt"] > revision["changedAt"]
    assert revision["recordedBy"] == {"name": f"Import from {ZENDESK}"}
    nodes = await timeline(service.settings, ZENDESK, "ticket/47", Scope.PRIVATE)
    told = [node for node in nodes if node["activityType"] == "TICKET_CREATED"]
    assert [node["message"] for node in told] == ["The printer is on fire"]
    [followers] = [node for node in nodes if node["metadata"].get("field") == "followers"]
    assert followers["metadata"] == {
        "zendeskId": 3011,
        "field": "followers",
        "from": [],
        "to": ["eve@example.com"],
        "rule": "Tell Eve",
    }
    assert followers["actor"] is None


@pytest.mark.any_engine
async def test_an_article_that_moved_in_a_merge_is_not_here_twice(
    reader: Client, capsys: Output, tmp_path: Path
) -> None:
    await load(capsys, tmp_path, "zammad", ZAMMAD, ZAMMAD_TICKET)
    merge = {"o_id": 3, "object": "Ticket", "created_by_id": 5, "id_from": 3, "id_to": 4}
    merge["created_at"] = "2026-03-03T08:00:00.000Z"
    title = {**ZAMMAD_TICKET["history"][1], "id": 95, "attribute": "title"}
    title |= {"value_from": "No network", "value_to": "No network at all"}
    tag = {**ZAMMAD_TICKET["history"][1], "id": 96, "type": "added", "attribute": "tag"}
    history = [*ZAMMAD_TICKET["history"], title, tag, {**merge, "id": 97, "type": "merged_into"}]
    source = {**ZAMMAD_TICKET, "articles": [], "history": history}
    source["ticket"] = {**ZAMMAD_TICKET["ticket"], "title": "No network at all"}
    target = {
        "ticket": {**ZAMMAD_TICKET["ticket"], "id": 4},
        "articles": ZAMMAD_TICKET["articles"],
        "history": [{**merge, "id": 98, "type": "received_merge"}],
    }

    printed = await load(capsys, tmp_path, "zammad", ZAMMAD, source, target)

    assert printed == [
        "Read FILE: added 2 of field_change, 1 of ticket_created, 1 of merged_into, "
        "1 of merged_from; 2 were here already.",
        "Left out: 3 of entries that are here on another ticket.",
    ]
    merged = await look(reader, ZAMMAD, "ticket/3")
    assert merged["mergedInto"] == {"id": id_of(ZAMMAD, "ticket/4")}


@pytest.mark.any_engine
async def test_what_was_removed_here_stays_so_and_what_changed_there_is_told(
    reader: Client, capsys: Output, tmp_path: Path
) -> None:
    await load(capsys, tmp_path, "zendesk", ZENDESK, GONE_ON, MERGED)
    ticket_id = id_of(ZENDESK, "ticket/47")
    [merge] = [
        node["id"]
        for node in (await look(reader, ZENDESK, "ticket/48"))["activities"]["nodes"]
        if node["activityType"] == "MERGED_INTO"
    ]
    deleted = id_of(ZENDESK, "comment/1003")
    await reader.mutate(DELETE, ticketId=ticket_id, activityId=deleted)
    await reader.mutate(DELETE, ticketId=id_of(ZENDESK, "ticket/48"), activityId=merge)
    await reader.put(ticket_id, id_of(ZENDESK, "comment/1001"), {"message": "Edited here."})
    private = changed(GONE_ON, False, "comments", 2, "public")

    printed = await load(capsys, tmp_path, "zendesk", ZENDESK, private, MERGED)

    assert printed == [
        "line 1: ticket/47, comment/1011: it is here already with other content",
        "1 records were wrong, and are left out.",
        "Read FILE: added nothing; 8 were here already.",
        "2 were deleted, redacted or unmerged here, and stay so.",
        "Left out: 1 of events Notification, 1 of merges with a ticket that is not here.",
    ]
    assert await reader.find(ticket_id, deleted) is None
    found = await reader.find(ticket_id, id_of(ZENDESK, "comment/1001"))
    assert found is not None
    assert found["message"] == "Edited here."


@pytest.mark.any_engine
async def test_an_address_is_one_however_it_is_written_and_another_one_is_another_system(
    reader: Client, capsys: Output, tmp_path: Path
) -> None:
    for address, known in ((ZAMMAD, 0), (f"{ZAMMAD.replace('z', 'Z', 1)}/", 5), (ZENDESK, 0)):
        [said] = await load(capsys, tmp_path, "zammad", address, ZAMMAD_TICKET)
        assert f"; {known} were here already." in said


@pytest.mark.any_engine
@pytest.mark.parametrize(
    "address", ["acme", "ftp://a.example", "https://me:x@a.example", "http://"]
)
def test_what_is_no_address_is_refused(capsys: Output, address: str) -> None:
    with pytest.raises(SystemExit):
        main(import_from(Path("x.jsonl"), "zendesk", address))

    assert "such as https://example.zendesk.com" in capsys.readouterr().err


CURL = """#!/bin/sh
# Answers with the file that has the name of the address.
for address; do :; done
cat "$ANSWERS/$(printf %s "$address" | tr -c A-Za-z0-9 _)"
"""
ZENDESK_API = f"{ZENDESK}/api/v2"
SOME_ID = "incremental/tickets/cursor.json?start_time=0&exclude_deleted=true"
COMMENTS = f"{ZENDESK_API}/tickets/47/comments.json?page[size]=100&include=users"
ANSWERS: dict[str, Any] = {
    f"{ZENDESK_API}/{SOME_ID}": {"tickets": [], "end_of_stream": False, "after_url": "http://b"},
    "http://b": {"tickets": [{"id": 47}], "end_of_stream": True, "after_url": "http://none"},
    f"{ZENDESK_API}/tickets/47.json?include=users": {
        "ticket": ZENDESK_TICKET["ticket"],
        "users": ZENDESK_TICKET["users"][:1],
    },
    COMMENTS: {
        "comments": ZENDESK_TICKET["comments"][:1],
        "meta": {"has_more": True},
        "links": {"next": "http://c"},
    },
    "http://c": {
        "comments": ZENDESK_TICKET["comments"][1:],
        "users": ZENDESK_TICKET["users"][1:],
        "meta": {"has_more": False},
    },
    f"{ZENDESK_API}/tickets/47/audits.json?page[size]=100": {"audits": ZENDESK_TICKET["audits"]},
    "https://support.example.com/api/v1/tickets?per_page=100&page=1": [{"id": 3}],
    "https://support.example.com/api/v1/tickets?per_page=100&page=2": [],
    "https://support.example.com/api/v1/tickets/3": ZAMMAD_TICKET["ticket"],
    "https://support.example.com/api/v1/ticket_articles/by_ticket/3?expand=true": ZAMMAD_TICKET[
        "articles"
    ],
    "https://support.example.com/api/v1/ticket_history/3": {
        "history": ZAMMAD_TICKET["history"],
        "assets": ZAMMAD_TICKET["assets"],
    },
}


@pytest.mark.any_engine
@pytest.mark.skipif(not which("jq"), reason="the commands of README.md need jq")
def test_the_commands_of_the_readme_put_together_what_the_apis_answer(tmp_path: Path) -> None:
    curl = tmp_path / "curl"
    curl.write_text(CURL)
    curl.chmod(0o755)
    for address, answer in ANSWERS.items():
        (tmp_path / re.sub("[^A-Za-z0-9]", "_", address)).write_text(json.dumps(answer))
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    section = readme.partition("### Come from Zendesk or Zammad")[2].partition("\n### ")[0]
    scripts = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)[1:]
    environment = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "ANSWERS": str(tmp_path),
        "MAIL": "",
        "TOKEN": "",
    }

    for script in scripts:
        subprocess.run(["sh", "-c", script], cwd=tmp_path, env=environment, check=True)

    assert lines_of(tmp_path / "zendesk.jsonl") == [ZENDESK_TICKET]
    assert lines_of(tmp_path / "zammad.jsonl") == [ZAMMAD_TICKET]


def test_the_address_of_the_other_system_must_be_given(capsys: Output, tmp_path: Path) -> None:
    [line] = refusal(capsys, "import", str(tmp_path / "x"), "--format", "zammad")

    assert "Give --format and --namespace together" in line
