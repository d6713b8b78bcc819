"""Backups that are taken while the service is used, and their restoration."""

import asyncio
import os
import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import make_url

from app.cli import main
from app.settings import Settings
from app.store.sqlite import sqlite_file
from tests.support.live import FEED
from tests.support.service import Client, Service, start

Output = pytest.CaptureFixture[str]
Environment = pytest.MonkeyPatch

pytestmark = pytest.mark.sqlite  # PostgreSQL has tools of its own

COUNTS = (
    "SELECT (SELECT sum(last_seq) FROM ticket), (SELECT count(*) FROM ticket_activity), "
    "(SELECT count(*) FROM ticket_activity_change), (SELECT count(*) FROM access_token)"
)


def name_database(monkeypatch: Environment, file: Path) -> None:
    monkeypatch.setenv("TICKET_ACTIVITY_DATABASE_URL", f"sqlite+aiosqlite:///{file}")


def settings_of(file: Path) -> Settings:
    return Settings(database_url=f"sqlite+aiosqlite:///{file}")


def file_of(settings: Settings) -> Path:
    return sqlite_file(make_url(settings.database_url))


def refusal(capsys: Output, *arguments: str) -> str:
    assert main(arguments) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    [line] = printed.err.splitlines()
    return line


async def write_on(author: Client, ticket_id: str, enough: asyncio.Event) -> None:
    while not enough.is_set():
        await author.create_activity(ticket_id, message="while it is backed up")


async def test_a_backup_while_writes_go_on_holds_one_state_readable_by_its_owner_alone(
    service: Service, author: Client, tmp_path: Path, monkeypatch: Environment, capsys: Output
) -> None:
    name_database(monkeypatch, service.file)
    ticket_id = await author.create_ticket()
    enough = asyncio.Event()
    writing = [asyncio.create_task(write_on(author, ticket_id, enough)) for _ in range(4)]
    backup = tmp_path / "new" / "folder" / "backup.db"

    assert await asyncio.to_thread(main, ["backup", str(backup)]) == 0
    enough.set()
    await asyncio.gather(*writing)

    assert f"to {backup}: " in capsys.readouterr().out
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600
    assert [file.name for file in backup.parent.iterdir()] == [backup.name]
    with closing(sqlite3.connect(backup)) as database:
        [seqs, entries, changes, tokens] = database.execute(COUNTS).fetchone()
    assert seqs == entries == changes
    assert tokens == 1


async def test_a_restored_backup_serves_what_it_held_and_no_cursor_from_before(
    settings: Settings, tmp_path: Path, monkeypatch: Environment, capsys: Output
) -> None:
    backup = tmp_path / "backup.db"
    file = file_of(settings)
    name_database(monkeypatch, file)
    async with start(settings) as service:
        author = await service.client()
        ticket_id = await author.create_ticket()
        entry = await author.create_activity(ticket_id, message="before")
        assert await asyncio.to_thread(main, ["backup", str(backup)]) == 0
        await author.put(ticket_id, entry["id"], {"message": "after"})
        page = await author.graphql(FEED, ticketId=ticket_id)
    cursor = page["data"]["ticketActivityChanges"]["pageInfo"]["endCursor"]
    capsys.readouterr()

    assert await asyncio.to_thread(main, ["restore", str(backup), "--replace"]) == 0

    kept = file.with_name(f"{file.name}.before-restore")
    assert str(kept) in capsys.readouterr().out
    async with start(settings_of(file)) as service:
        restored = Client(service.http, author.actor_id, author.token)
        found = await restored.find(ticket_id, entry["id"])
        refused = await restored.graphql(FEED, ticketId=ticket_id, after=cursor)
    assert found
    assert (found["message"], found["version"]) == ("before", 1)
    assert refused["errors"][0]["extensions"]["code"] == "CURSOR_EXPIRED"
    async with start(settings_of(kept)) as service:
        kept_entry = await Client(service.http, author.actor_id, author.token).find(
            ticket_id, entry["id"]
        )
    assert kept_entry
    assert kept_entry["message"] == "after"


async def test_a_database_in_use_is_not_replaced(
    service: Service, author: Client, tmp_path: Path, monkeypatch: Environment, capsys: Output
) -> None:
    name_database(monkeypatch, service.file)
    ticket_id = await author.create_ticket()
    backup = tmp_path / "backup.db"
    assert main(["backup", str(backup)]) == 0
    capsys.readouterr()

    line = await asyncio.to_thread(refusal, capsys, "restore", str(backup), "--replace")

    assert f"{service.file} is in use: stop the service first." in line
    await author.create_activity(ticket_id, message="it still writes")


@pytest.fixture
def backup(settings: Settings, tmp_path: Path, monkeypatch: Environment, capsys: Output) -> Path:
    """A backup of an empty database; the settings name another file."""
    name_database(monkeypatch, file_of(settings))
    file = tmp_path / "backup.db"
    assert main(["backup", str(file)]) == 0
    capsys.readouterr()
    name_database(monkeypatch, tmp_path / "restored.db")
    return file


def test_a_backup_is_restored_where_there_is_no_database(
    backup: Path, tmp_path: Path, capsys: Output
) -> None:
    assert main(["restore", str(backup)]) == 0

    assert len(capsys.readouterr().out.splitlines()) == 1
    assert stat.S_IMODE((tmp_path / "restored.db").stat().st_mode) == 0o600
    assert main(["token", "list"]) == 0


def test_a_database_is_replaced_only_if_asked_and_its_copy_never(
    backup: Path, tmp_path: Path, capsys: Output
) -> None:
    (tmp_path / "restored.db").write_text("broken")

    assert "restored.db exists already" in refusal(capsys, "restore", str(backup))
    assert main(["restore", str(backup), "--replace"]) == 0
    capsys.readouterr()
    again = refusal(capsys, "restore", str(backup), "--replace")

    assert "restored.db.before-restore exists already" in again
    assert (tmp_path / "restored.db.before-restore").read_text() == "broken"


def test_a_backup_overwrites_nothing(
    backup: Path, settings: Settings, monkeypatch: Environment, capsys: Output
) -> None:
    name_database(monkeypatch, file_of(settings))
    before = backup.read_bytes()

    assert f"{backup} exists already" in refusal(capsys, "backup", str(backup))
    assert backup.read_bytes() == before


def damaged(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[4096:20480] = bytes(16384)
    file.write_bytes(content)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:8192])


def replaced(file: Path) -> None:
    file.write_text("no database at all, and longer than a header " * 100)


def newer(file: Path) -> None:
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("UPDATE alembic_version SET version_num = 'ffff'")


def absent(file: Path) -> None:
    file.unlink()


@pytest.mark.parametrize("spoil", [damaged, cut, replaced, newer, absent])
def test_what_is_no_whole_backup_is_refused_in_one_line_and_changes_nothing(
    backup: Path, tmp_path: Path, capsys: Output, spoil: Callable[[Path], None]
) -> None:
    spoil(backup)
    (tmp_path / "restored.db").write_text("the database")

    refusal(capsys, "restore", str(backup), "--replace")

    assert (tmp_path / "restored.db").read_text() == "the database"
    files = {file.name for file in tmp_path.iterdir()} - {"backup.db", "backup.db-wal"}
    assert files - {"backup.db-shm"} == {"restored.db"}


def test_another_database_than_sqlite_has_its_own_tools(
    monkeypatch: Environment, capsys: Output
) -> None:
    monkeypatch.setenv("TICKET_ACTIVITY_DATABASE_URL", "postgresql+asyncpg://ada@localhost/x")

    assert "pg_dump" in refusal(capsys, "backup", "x")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_what_root_makes_belongs_to_the_user_of_the_service(
    tmp_path: Path, monkeypatch: Environment, capsys: Output
) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    os.chown(folder, 65532, 65532)
    name_database(monkeypatch, folder / "tickets.db")
    backup = tmp_path / "backup.db"

    assert main(["migrate"]) == 0
    made = {file.stat().st_uid for file in folder.iterdir()}
    assert main(["backup", str(backup)]) == 0
    assert main(["restore", str(backup), "--replace"]) == 0
    restored = {file.stat().st_uid for file in folder.iterdir()}

    assert made == restored == {65532}
    assert backup.stat().st_uid == 0
