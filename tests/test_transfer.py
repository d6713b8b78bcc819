"""All data out to a file of JSON Lines, and in again."""

import asyncio
import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import jsonschema_rs
import pytest
from sqlmodel import SQLModel

from app.auth import Scope
from app.cli import main
from app.settings import Settings
from app.store import rows
from app.store.lines import KINDS
from tests.support.engines import Engine
from tests.support.postgresql import execute, until_waiting
from tests.support.service import CREATE_TICKET, Client, start

Output = pytest.CaptureFixture[str]
Environment = pytest.MonkeyPatch
Line = dict[str, Any]

DELETE = """
mutation($input: DeleteTicketActivityInput!) {
  deleteTicketActivity(input: $input) { userErrors { code } }
}
"""
MERGE = """
mutation($input: MergeTicketsInput!) { mergeTickets(input: $input) { userErrors { code } } }
"""
NAME = """
mutation($input: UpsertActorsInput!) { upsertActors(input: $input) { userErrors { code } } }
"""
REVISIONS = """
query($ticketId: ID!, $activityId: ID!) {
  ticketActivity(ticketId: $ticketId, activityId: $activityId) {
    message version updatedAt revisions(first: 10) { nodes { message version changedAt } }
  }
}
"""
COUNT = """
query($id: ID!) { ticket(id: $id) { activities(first: 9) { totalCount nodes { id } } } }
"""
UPPER = {"ticketId", "activityId"}
METADATA = {"one": 1, "one.0": 1.0, "-0.0": -0.0, "big": 2**63 - 1, "text": "\u2028é😀", "n": None}


def name_database(monkeypatch: Environment, url: str) -> None:
    monkeypatch.setenv("TICKET_ACTIVITY_DATABASE_URL", url)


def run(*arguments: str) -> None:
    assert main(arguments) == 0


def refusal(capsys: Output, *arguments: str) -> list[str]:
    capsys.readouterr()
    assert main(arguments) == 1
    return capsys.readouterr().err.splitlines()


def lines_of(file: Path) -> list[Line]:
    return [json.loads(line) for line in file.read_bytes().splitlines()]


def write_lines(file: Path, lines: list[Line]) -> Path:
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return file


async def fill(settings: Settings) -> tuple[Client, str, str]:
    """Make a ticket with a history, another one that is merged, and an entry that is deleted."""
    async with start(settings) as service:
        author = await service.client(*Scope)
        ticket_id = await author.create_ticket()
        entry = await author.create_activity(ticket_id, message="first", metadata=METADATA)
        service.clock.advance(seconds=1)
        await author.put(ticket_id, entry["id"], {"message": "second", "isPrivate": True})
        gone = await author.create_activity(ticket_id, message="gone")
        await author.mutate(DELETE, ticketId=ticket_id, activityId=gone["id"])
        named = [{"id": str(author.actor_id), "name": "Ada", "avatarUrl": None}]
        await author.mutate(NAME, actors=named)
        merged = await author.mutate(CREATE_TICKET)
        source_id = merged["ticket"]["id"]
        await author.mutate(MERGE, sourceId=source_id, targetId=ticket_id)
    return author, ticket_id, entry["id"]


@pytest.fixture
async def exported(
    settings: Settings, tmp_path: Path, monkeypatch: Environment
) -> tuple[Path, Client, str, str]:
    """An export with tokens, and what of it a client may ask for."""
    filled = await fill(settings)
    name_database(monkeypatch, settings.database_url)
    file = tmp_path / "export.jsonl"
    await asyncio.to_thread(run, "export", str(file), "--tokens")
    return file, *filled


@pytest.fixture
def target(engine: Engine, monkeypatch: Environment) -> str:
    """Name another database, which is empty."""
    return engine.new_database()


async def test_what_is_imported_is_what_was_exported_and_is_served(
    exported: tuple[Path, Client, str, str],
    target: str,
    settings: Settings,
    tmp_path: Path,
    monkeypatch: Environment,
) -> None:
    file, author, ticket_id, entry_id = exported
    name_database(monkeypatch, target)

    for _ in range(2):  # the second time changes nothing
        await asyncio.to_thread(run, "import", str(file))
    again = tmp_path / "again.jsonl"
    await asyncio.to_thread(run, "export", str(again), "--tokens")

    assert lines_of(again)[1:] == lines_of(file)[1:]
    answers = []
    for url in (settings.database_url, target):
        async with start(settings.model_copy(update={"database_url": url})) as service:
            client = Client(service.http, author.actor_id, author.token)
            answers.append(await client.graphql(REVISIONS, ticketId=ticket_id, activityId=entry_id))
    assert "errors" not in answers[0]
    assert answers[0] == answers[1]


async def test_lines_that_spell_the_same_otherwise_are_the_same_rows(
    exported: tuple[Path, Client, str, str], target: str, tmp_path: Path, monkeypatch: Environment
) -> None:
    file, *_ = exported
    lines = lines_of(file)
    upper = [
        {name: value.upper() if name in UPPER else value for name, value in line.items()}
        for line in lines
    ]
    text = write_lines(tmp_path / "upper.jsonl", upper).read_text()
    spelled = tmp_path / "spelled.jsonl"
    spelled.write_text(text.replace(".514000Z", ".514999+00:00"))
    assert lines_of(spelled) != lines
    name_database(monkeypatch, target)

    await asyncio.to_thread(run, "import", str(spelled))
    await asyncio.to_thread(run, "import", str(file))
    again = tmp_path / "again.jsonl"
    await asyncio.to_thread(run, "export", str(again), "--tokens")

    assert lines_of(again)[1:] == lines[1:]


async def test_an_import_that_was_cut_off_is_run_again(
    exported: tuple[Path, Client, str, str],
    target: str,
    tmp_path: Path,
    monkeypatch: Environment,
    capsys: Output,
) -> None:
    file, *_ = exported
    lines = lines_of(file)
    half = write_lines(tmp_path / "half.jsonl", lines[: len(lines) // 2])
    name_database(monkeypatch, target)

    [line] = await asyncio.to_thread(refusal, capsys, "import", str(half))
    await asyncio.to_thread(run, "import", str(file))

    assert "the file is cut off: it has no end line" in line
    again = tmp_path / "again.jsonl"
    await asyncio.to_thread(run, "export", str(again), "--tokens")
    assert lines_of(again)[1:] == lines[1:]


async def test_a_service_shows_what_is_imported_while_it_serves(
    exported: tuple[Path, Client, str, str],
    target: str,
    settings: Settings,
    tmp_path: Path,
    monkeypatch: Environment,
    capsys: Output,
) -> None:
    file, author, ticket_id, _ = exported
    tickets = [line for line in lines_of(file) if line["kind"] in {"header", "ticket"}]
    half = write_lines(tmp_path / "half.jsonl", tickets)
    name_database(monkeypatch, target)
    await asyncio.to_thread(run, "migrate")
    async with start(settings.model_copy(update={"database_url": target})) as service:
        reader = await service.client()
        await asyncio.to_thread(refusal, capsys, "import", str(half))
        before = await reader.graphql(COUNT, id=ticket_id)
        await asyncio.to_thread(run, "import", str(file))
        after = await reader.graphql(COUNT, id=ticket_id)

        own = Client(service.http, author.actor_id, author.token)
        rest = await own.graphql(COUNT, id=ticket_id)
    assert before["data"]["ticket"]["activities"]["totalCount"] == 0
    assert after["data"]["ticket"]["activities"]["totalCount"] > 0
    assert rest["data"]["ticket"]["activities"]["nodes"]


@pytest.mark.postgresql
@pytest.mark.parametrize(
    "fault",
    ["RAISE EXCEPTION USING ERRCODE = '40001'", "PERFORM pg_terminate_backend(pg_backend_pid())"],
)
async def test_a_batch_is_stored_again_after_postgresql_ended_its_transaction(
    exported: tuple[Path, Client, str, str],
    target: str,
    tmp_path: Path,
    monkeypatch: Environment,
    fault: str,
) -> None:
    name_database(monkeypatch, target)
    await asyncio.to_thread(run, "migrate")
    await execute(target, "CREATE SEQUENCE attempt")
    await execute(
        target,
        f"""CREATE FUNCTION fail_once() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF nextval('attempt') = 1 THEN {fault}; END IF; RETURN NEW; END $$""",
    )
    await execute(
        target,
        "CREATE TRIGGER fail BEFORE INSERT ON ticket FOR EACH ROW EXECUTE FUNCTION fail_once()",
    )

    # Merges are not copied.
    lines = [line for line in lines_of(exported[0]) if line["kind"] != "merge"]
    del _of(lines, "end")["counts"]["merge"]
    await asyncio.to_thread(run, "import", str(write_lines(tmp_path / "new.jsonl", lines)))

    again = tmp_path / "again.jsonl"
    await asyncio.to_thread(run, "export", str(again), "--tokens")
    assert [line for line in lines_of(again) if line["kind"] in {"ticket", "entry", "change"}] == [
        line for line in lines if line["kind"] in {"ticket", "entry", "change"}
    ]


@pytest.mark.postgresql
@pytest.mark.parametrize("held", ["ticket", "actor"])
async def test_an_import_holds_no_later_ticket_while_it_waits_for_what_others_hold(
    settings: Settings, target: str, tmp_path: Path, monkeypatch: Environment, held: str
) -> None:
    """Else a service that holds it would wait for the import, and each for the other."""
    low, high = sorted([str(uuid4()), str(uuid4())])
    async with start(settings) as service:
        author = await service.client(*Scope)
        for id_ in (low, high):
            await author.mutate(CREATE_TICKET, id=id_)
        await author.create_activity(high, message="of the later ticket")
        await author.mutate(MERGE, sourceId=low, targetId=high)
        await author.mutate(NAME, actors=[{"id": str(author.actor_id), "name": "Ada"}])
    name_database(monkeypatch, settings.database_url)
    file = tmp_path / "export.jsonl"
    await asyncio.to_thread(run, "export", str(file))
    name_database(monkeypatch, target)
    await asyncio.to_thread(run, "migrate")
    # As an import that was cut off before the entries of the later ticket.
    half = [line for line in lines_of(file) if line.get("ticketId") != high]
    await asyncio.to_thread(main, ["import", str(write_lines(tmp_path / "half", half[:-2]))])
    other = await asyncpg.connect(target.replace("+asyncpg", "", 1))

    async with start(settings.model_copy(update={"database_url": target})) as service:
        grace = await service.client(*Scope)
        transaction = other.transaction()
        await transaction.start()
        naming = None
        if held == "ticket":
            await other.execute("SELECT FROM ticket WHERE id = $1 FOR NO KEY UPDATE", low)
        else:
            new = "INSERT INTO actor (id, updated_at) VALUES ($1, now())"
            await other.executemany(new, [(author.actor_id,), (grace.actor_id,)])
            named = [{"id": str(grace.actor_id), "name": "Grace"}]
            naming = asyncio.create_task(grace.mutate(NAME, actors=named))
            await until_waiting(other)
        importing = asyncio.create_task(asyncio.to_thread(run, "import", str(file)))
        await until_waiting(other, 2 if naming else 1)
        free = "SELECT id FROM ticket WHERE id = $1 FOR UPDATE SKIP LOCKED"
        is_free = await other.fetchval(free, high)
        await transaction.rollback()
        await importing
        if naming:
            await naming
    await other.close()

    assert is_free


@pytest.mark.postgresql
async def test_a_commit_that_fails_is_told_in_one_line(
    exported: tuple[Path, Client, str, str], target: str, monkeypatch: Environment, capsys: Output
) -> None:
    name_database(monkeypatch, target)
    await execute(
        target,
        """CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            RAISE EXCEPTION 'not today'; END $$""",
    )
    await execute(
        target,
        "CREATE CONSTRAINT TRIGGER fail AFTER INSERT ON ticket DEFERRABLE INITIALLY DEFERRED "
        "FOR EACH ROW EXECUTE FUNCTION fail()",
    )

    [line] = await asyncio.to_thread(refusal, capsys, "import", str(exported[0]))

    assert "The last COMMIT failed" in line
    assert "not today" in line


async def test_every_line_fits_the_published_schema_and_the_file_is_its_owners(
    exported: tuple[Path, Client, str, str], capsys: Output
) -> None:
    file, *_ = exported
    capsys.readouterr()
    run("export-schema")
    schema = jsonschema_rs.validator_for(json.loads(capsys.readouterr().out))

    assert all(schema.is_valid(line) for line in lines_of(file))
    assert not schema.is_valid({"kind": "ticket"})
    assert {line["kind"] for line in lines_of(file)} == {
        *("header", "ticket", "merge", "entry", "change", "actor", "token", "end")
    }
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    [line] = await asyncio.to_thread(refusal, capsys, "export", str(file))
    assert "exists already" in line


def test_every_table_is_exported_or_belongs_to_this_database_alone() -> None:
    # A table of erasures names those who are to be forgotten.
    erasures = SQLModel.metadata.tables["actor_erasure"]
    own = {rows.CURSOR_KEY, rows.IDEMPOTENCY_KEY, erasures}
    follows_from_others = {rows.NODE}
    exported = {kind.table for kind in KINDS.values()}

    assert exported | own | follows_from_others == set(SQLModel.metadata.tables.values())
    for kind in KINDS.values():
        assert set(kind.columns) == set(kind.table.columns.keys()) - {
            "merged_into_id",
            "edition",
            "forgotten_public_seq",
        }


async def test_an_export_of_an_earlier_release_has_all_of_its_history(
    exported: tuple[Path, Client, str, str], target: str, tmp_path: Path, monkeypatch: Environment
) -> None:
    lines = lines_of(exported[0])
    for line in lines:
        line.pop("forgottenSeq", None)
        line.pop("firstVersion", None)
    name_database(monkeypatch, target)

    await asyncio.to_thread(run, "import", str(write_lines(tmp_path / "old.jsonl", lines)))

    await asyncio.to_thread(run, "export", str(tmp_path / "again.jsonl"), "--tokens")
    assert lines_of(tmp_path / "again.jsonl")[1:] == lines_of(exported[0])[1:]


async def test_tokens_are_exported_only_if_asked_for(
    settings: Settings, tmp_path: Path, monkeypatch: Environment
) -> None:
    await fill(settings)
    name_database(monkeypatch, settings.database_url)

    await asyncio.to_thread(run, "export", str(tmp_path / "export.jsonl"))

    text = (tmp_path / "export.jsonl").read_text()
    assert "secretHash" not in text
    assert '"token"' not in text


Spoil = Callable[[list[Line]], None]


def _of(lines: list[Line], kind: str) -> Line:
    return next(line for line in lines if line["kind"] == kind)


def _set(kind: str, member: str, value: object) -> Spoil:
    return lambda lines: _of(lines, kind).update({member: value})


def _without(kind: str) -> Spoil:
    return lambda lines: lines.remove(_of(lines, kind))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_set("entry", "message", "a\0b"), "U+0000"),
        (_set("entry", "metadata", []), "entry.metadata: "),
        (_set("entry", "id", "x"), "entry.id: "),
        (_set("entry", "other", 1), "entry.other: "),
        (_set("entry", "createdAt", "2026-11-24"), "entry.createdAt: "),
        (_set("entry", "activityType", "call"), "entry.activityType: "),
        (_set("change", "seq", 0), "change.seq: "),
        (_set("change", "activityId", "0190a3f0-5c1e-7b2a-9d3e-4f5a6b7c8d9e"), "is not there"),
        (_set("entry", "ticketId", "0190a3f0-5c1e-7b2a-9d3e-4f5a6b7c8d9e"), "is not there"),
        (_set("change", "reason", "a\0b"), "reason holds the character NUL"),
        (_set("actor", "name", "a\nb"), "name must be"),
        (_set("actor", "avatarUrl", "javascript:alert(1)"), "avatarUrl "),
        (_set("token", "name", "a\0b"), "name holds the character NUL"),
        (_set("entry", "createdAt", "9999-12-31T23:59:59-12:00"), "entry.createdAt: "),
        (_set("entry", "createdAt", "0001-01-01T00:00:00+12:00"), "entry.createdAt: "),
        (_set("entry", "version", 2**31), "entry.version: "),
        (_set("change", "version", 2**31), "change.version: "),
        (_set("header", "version", 2), "header.version: "),
        (_without("header"), "header"),
        (_without("change"), "the end line counts"),
        (lambda lines: lines.append(lines[1]), "after the end line"),
        (lambda lines: lines.insert(3, {"kind": "nothing"}), "the line: "),
    ],
)
async def test_a_wrong_line_stops_the_import_with_its_number_and_field(
    exported: tuple[Path, Client, str, str],
    target: str,
    tmp_path: Path,
    monkeypatch: Environment,
    capsys: Output,
    spoil: Spoil,
    said: str,
) -> None:
    lines = lines_of(exported[0])
    spoil(lines)
    spoilt = write_lines(tmp_path / "spoilt.jsonl", lines)
    name_database(monkeypatch, target)

    [line] = await asyncio.to_thread(refusal, capsys, "import", str(spoilt))

    assert f"{spoilt}: line " in line
    assert said in line


async def test_wrong_lines_can_be_left_out(
    exported: tuple[Path, Client, str, str],
    target: str,
    tmp_path: Path,
    monkeypatch: Environment,
    capsys: Output,
) -> None:
    lines = lines_of(exported[0])
    lines.insert(2, {"kind": "nothing"})
    lines.insert(5, {"kind": "ticket", "id": 1})
    spoilt = write_lines(tmp_path / "spoilt.jsonl", lines)
    name_database(monkeypatch, target)

    printed = await asyncio.to_thread(
        refusal, capsys, "import", str(spoilt), "--on-error", "continue"
    )

    assert [line.split(":")[1] for line in printed[:2]] == [" line 3", " line 6"]
    assert printed[-1] == "ticket-activity: 2 lines were wrong, and are left out."
    again = tmp_path / "again.jsonl"
    await asyncio.to_thread(run, "export", str(again), "--tokens")
    assert lines_of(again)[1:] == lines_of(exported[0])[1:]


async def test_a_row_that_is_there_with_other_content_is_a_wrong_line(
    exported: tuple[Path, Client, str, str],
    tmp_path: Path,
    capsys: Output,
) -> None:
    lines = lines_of(exported[0])
    _of(lines, "change")["message"] = "history rewritten"
    spoilt = write_lines(tmp_path / "spoilt.jsonl", lines)

    [line] = await asyncio.to_thread(refusal, capsys, "import", str(spoilt))

    assert "there is another change in its place already" in line
