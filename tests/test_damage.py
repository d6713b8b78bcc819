"""A start refuses a database file that is damaged, and says what to do."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import make_url

from app.cli import main
from app.store.sqlite import sqlite_file

Output = pytest.CaptureFixture[str]
Environment = pytest.MonkeyPatch
Damage = Callable[[Path], object]

PAGE_BYTES = 4096
PAGES_OF_TREES = (2, 5, 10, 13)  # https://www.sqlite.org/fileformat.html#b_tree_pages
FILL = """
WITH RECURSIVE number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < 2000)
INSERT INTO ticket (id, created_at, last_seq, last_changed_at)
SELECT printf('%032x', n), 0, 1, 0 FROM number
"""


@pytest.fixture
def file(database_url: str, monkeypatch: Environment) -> Path:
    """The file of the database that the settings name, with 2,000 tickets."""
    monkeypatch.setenv("TICKET_ACTIVITY_DATABASE_URL", database_url)
    file = sqlite_file(make_url(database_url))
    file.chmod(0o600)
    with closing(sqlite3.connect(file)) as database, database:
        database.execute(FILL)
    return file


def started(capsys: Output) -> tuple[int, str]:
    """Prepare the database as a start does; return the status and what is said."""
    status = main(["migrate"])
    return status, capsys.readouterr().err


def cut_in_half(file: Path) -> None:
    with file.open("rb+") as opened:
        opened.truncate(file.stat().st_size // 2)


def cut_last_byte(file: Path) -> None:
    with file.open("rb+") as opened:
        opened.truncate(file.stat().st_size - 1)


def flip_last_page(file: Path) -> None:
    """Flip the byte that says what kind of page the last page of a tree is."""
    content = bytearray(file.read_bytes())
    heads = range(PAGE_BYTES, len(content), PAGE_BYTES)
    last = max(at for at in heads if content[at] in PAGES_OF_TREES)
    content[last] ^= 0xFF
    file.write_bytes(content)


def empty_beside_a_log(file: Path) -> None:
    file.write_bytes(b"")
    file.with_name(f"{file.name}-wal").write_bytes(b"what was committed last")


@pytest.mark.sqlite
@pytest.mark.parametrize("damage", [cut_in_half, cut_last_byte, flip_last_page, empty_beside_a_log])
def test_a_damaged_file_is_refused_with_what_to_do(
    file: Path, capsys: Output, damage: Damage
) -> None:
    damage(file)
    before = {path: path.read_bytes() for path in file.parent.iterdir()}

    status, said = started(capsys)

    assert status == 1
    assert said.startswith(f"ticket-activity: The database {file} is damaged: ")
    assert said.endswith("in its place: `ticket-activity restore BACKUP --replace`.\n")
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.sqlite
def test_a_start_says_when_its_time_is_too_short_to_look_through_the_file(
    file: Path, capsys: Output, monkeypatch: Environment
) -> None:
    monkeypatch.setenv("TICKET_ACTIVITY_DATABASE_CHECK_SECONDS", "0.0000001")
    assert started(capsys) == (
        0,
        "ticket-activity: the file is large: 1e-07 s were not enough to look through it for "
        "damage.\n",
    )

    monkeypatch.setenv("TICKET_ACTIVITY_DATABASE_CHECK_SECONDS", "0")
    assert started(capsys) == (0, "")
