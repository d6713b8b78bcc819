"""The operator's door: issue, list and revoke tokens, and one clear line for what goes wrong."""

import ast
import inspect
import os
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from pkgutil import resolve_name
from uuid import uuid4

import anyio
import pytest

from app import cli
from app.auth import Scope, parse_token
from app.cli import main
from app.settings import Settings
from tests.support.process import ROOT
from tests.support.service import Client, start

ADA = "0190a3f0-5c1e-7b2a-9d3e-4f5a6b7c8d9e"
CREATE = ["token", "create", "--name", "Ada's laptop", "--actor", ADA]
VIEWER = "{ viewer { actorId name scopes } }"

Output = pytest.CaptureFixture[str]
Environment = pytest.MonkeyPatch


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: Environment) -> None:
    for name in os.environ:
        if name.upper().startswith("TICKET_ACTIVITY_"):
            monkeypatch.delenv(name)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: Environment) -> Path:
    """The file of the database that the settings name, which is not there yet."""
    file = tmp_path / "new" / "tickets.db"
    set_database(monkeypatch, file)
    return file


@pytest.fixture
def database(file: Path, capsys: Output) -> Path:
    assert main(["migrate"]) == 0
    capsys.readouterr()
    return file


def set_database(monkeypatch: Environment, file: Path) -> None:
    monkeypatch.setenv("TICKET_ACTIVITY_DATABASE_URL", f"sqlite+aiosqlite:///{file}")


def run(output: Output, *arguments: str) -> list[str]:
    """Run a command that succeeds and return the lines it prints."""
    assert main(arguments) == 0
    printed = output.readouterr()
    assert printed.err == ""
    return printed.out.splitlines()


def refusal(output: Output, *arguments: str) -> str:
    """Run a command that fails and return the one line it prints."""
    assert main(arguments) == 1
    printed = output.readouterr()
    assert printed.out == ""
    [line] = printed.err.splitlines()
    assert line.startswith("ticket-activity: ")
    return line


def viewer_of(file: Path, token: str) -> object:
    """Ask the service who presents a token; None where it is refused."""

    async def ask() -> object:
        async with start(Settings(database_url=f"sqlite+aiosqlite:///{file}")) as service:
            document = await Client(service.http, uuid4(), token).graphql(VIEWER)
            return document["data"]["viewer"] if "data" in document else None

    return anyio.run(ask)


# Tokens


@pytest.mark.any_engine
@pytest.mark.parametrize("arguments", [["health"], ["--version"], ["--help"]], ids=" ".join)
def test_a_command_that_needs_little_imports_little(arguments: list[str]) -> None:
    """A container runs `health` every few seconds: it took a second to import the service."""
    command = [sys.executable, "-X", "importtime", "-m", "app", *arguments]

    ended = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True)

    imported = {line.split("|")[-1].strip() for line in ended.stderr.splitlines() if "|" in line}
    packages = {module.partition(".")[0] for module in imported}
    assert "app" in packages
    assert packages.isdisjoint(
        {"alembic", "asyncio", "graphql", "sqlalchemy", "sqlmodel", "starlette", "strawberry"}
        | {"cryptography", "structlog", "uvicorn"}
    )
    assert ended.returncode == (1 if arguments == ["health"] else 0)


@pytest.mark.any_engine
def test_every_command_is_there() -> None:
    tree = ast.parse(inspect.getsource(cli))
    names = [
        ast.literal_eval(node.args[2])
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "_add"
    ]

    assert "health:check_health" in names
    assert all(callable(resolve_name(f"app.commands.{name}")) for name in names)


def test_create_prints_one_token_which_works(database: Path, capsys: Output) -> None:
    [token] = run(capsys, *CREATE)

    assert viewer_of(database, token) == {
        "actorId": ADA,
        "name": "Ada's laptop",
        "scopes": ["READ", "WRITE"],
    }


def test_create_gives_the_scopes_that_are_named(database: Path, capsys: Output) -> None:
    named = ["--scope", "activity:read", "--scope", "activity:private"]

    [token] = run(capsys, *CREATE, *named, "--expires-in", "never")

    [line] = run(capsys, "token", "list")
    assert "activity:private,activity:read  " in line
    assert "expires never" in line
    assert viewer_of(database, token)


def test_list_shows_every_token_and_never_a_secret(database: Path, capsys: Output) -> None:
    tokens = [
        parse_token(run(capsys, *CREATE, "--expires-in", life)[0]) for life in ("30m", "never")
    ]

    lines = run(capsys, "token", "list")

    assert len(lines) == 2
    for token in tokens:
        [line] = [line for line in lines if line.startswith(f"{token.id}  Ada's laptop  ")]
        assert f"actor {ADA}  {Scope.READ},{Scope.WRITE}  created 20" in line
        assert line.endswith("revoked never  last used never")
        assert token.secret not in line
        assert token.secret_hash not in line


def test_list_of_no_tokens_is_empty(database: Path, capsys: Output) -> None:
    assert run(capsys, "token", "list") == []


def test_a_revoked_token_works_no_more(database: Path, capsys: Output) -> None:
    revoked, kept = (run(capsys, *CREATE)[0] for _ in range(2))
    token_id = parse_token(revoked).id

    [line] = run(capsys, "token", "revoke", token_id)

    assert token_id in line
    assert viewer_of(database, revoked) is None
    assert viewer_of(database, kept)
    assert ["revoked never" in line for line in run(capsys, "token", "list")].count(False) == 1
    assert run(capsys, "token", "revoke", token_id) == [line]


def test_revoking_an_unknown_id_is_one_line(database: Path, capsys: Output) -> None:
    assert "0123456789abcdef" in refusal(capsys, "token", "revoke", "0123456789abcdef")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--actor", "ada"),
        ("--actor", f"{{{ADA}}}"),
        ("--actor", ADA.replace("-", "")),
        ("--scope", "activity:admin"),
        ("--scope", ""),
        ("--expires-in", "90"),
        ("--expires-in", "0d"),
        ("--expires-in", "-1d"),
        ("--expires-in", "1w"),
        ("--expires-in", "999999d"),
        ("--name", ""),
        ("--name", "two\nlines"),
        ("--name", "x" * 101),
    ],
)
def test_a_wrong_option_is_an_error_of_usage(
    database: Path, capsys: Output, option: str, value: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*CREATE, f"{option}={value}"])

    assert ended.value.code == 2
    assert f"argument {option}" in capsys.readouterr().err
    assert run(capsys, "token", "list") == []


@pytest.mark.parametrize(
    "arguments", [[], ["token"], ["token", "create"], ["token", "revoke"], ["x"]]
)
def test_an_incomplete_command_is_an_error_of_usage(capsys: Output, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)

    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert "usage: ticket-activity" in error
    assert error.endswith("--help` says more.\n")


def test_a_wrong_scope_is_told_the_right_ones(database: Path, capsys: Output) -> None:
    with pytest.raises(SystemExit):
        main([*CREATE, "--scope=read"])

    assert f"'read' is none of {', '.join(Scope)}" in capsys.readouterr().err


def test_a_misspelt_setting_is_told_the_right_one(
    file: Path, monkeypatch: Environment, capsys: Output
) -> None:
    monkeypatch.setenv("TICKET_ACTIVITY_PROT", "8000")

    assert "did you mean TICKET_ACTIVITY_PORT?" in refusal(capsys, "migrate")
    assert not file.exists()


def test_schema_prints_what_is_committed(capsys: Output) -> None:
    assert main(["schema"]) == 0

    assert capsys.readouterr().out == (ROOT / "schema.graphql").read_text()


# What goes wrong at the start

COMMANDS = pytest.mark.parametrize(
    "command", [["migrate"], ["token", "list"], CREATE], ids=lambda command: " ".join(command[:2])
)


@COMMANDS
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TICKET_ACTIVITY_PORT", "x"),
        ("TICKET_ACTIVITY_PORT", "65536"),
        ("TICKET_ACTIVITY_PORT", "1\n2"),
        ("TICKET_ACTIVITY_HOST", ""),
        ("TICKET_ACTIVITY_HOST", " "),
        ("TICKET_ACTIVITY_CORS_ORIGINS", "https://desk.example/"),
        ("TICKET_ACTIVITY_GRAPHIQL", "perhaps"),
        ("TICKET_ACTIVITY_READ_CONNECTIONS", "0"),
        ("TICKET_ACTIVITY_DATABASE_CONNECT_SECONDS", "inf"),
        ("TICKET_ACTIVITY_DATABASE_STATEMENT_SECONDS", "0.0004"),
        ("TICKET_ACTIVITY_DATABASE_LOCK_SECONDS", "1e9"),
        ("TICKET_ACTIVITY_PROT", "8000"),
        ("ticket_activity_prot", "8000"),
        ("TICKET_ACTIVITY_DATABASE_URL", ""),
        ("TICKET_ACTIVITY_DATABASE_URL", "tickets.db"),
        ("TICKET_ACTIVITY_DATABASE_URL", "sqlite:///tickets.db"),
        ("TICKET_ACTIVITY_DATABASE_URL", "nosuch+driver://host/name"),
        ("TICKET_ACTIVITY_DATABASE_URL", "mysql+aiomysql://ada:hunter2@host/name"),
        ("TICKET_ACTIVITY_DATABASE_URL", "sqlite+aiosqlite://"),
        ("TICKET_ACTIVITY_DATABASE_URL", "sqlite+aiosqlite:///:memory:"),
        ("TICKET_ACTIVITY_DATABASE_URL", "sqlite+aiosqlite:///file:x?mode=memory&uri=true"),
    ],
)
def test_a_wrong_setting_is_one_line_with_its_name(
    file: Path, monkeypatch: Environment, capsys: Output, command: list[str], name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)

    line = refusal(capsys, *command)

    assert name in line
    assert "hunter2" not in line
    assert not file.exists()


def test_a_folder_that_cannot_be_made_is_one_line(
    tmp_path: Path, monkeypatch: Environment, capsys: Output
) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("in the way")
    set_database(monkeypatch, in_the_way / "folder" / "tickets.db")

    assert str(in_the_way) in refusal(capsys, "migrate")
    assert in_the_way.read_text() == "in the way"


@COMMANDS
def test_a_file_that_is_no_database_is_one_line(
    tmp_path: Path, monkeypatch: Environment, capsys: Output, command: list[str]
) -> None:
    garbage = tmp_path / "garbage.db"
    garbage.write_bytes(b"no database" * 1000)
    set_database(monkeypatch, garbage)

    line = refusal(capsys, *command)

    assert str(garbage) in line
    assert "not a database" in line
    assert garbage.read_bytes() == b"no database" * 1000


@COMMANDS
def test_a_folder_for_a_file_is_one_line(
    tmp_path: Path, monkeypatch: Environment, capsys: Output, command: list[str]
) -> None:
    set_database(monkeypatch, tmp_path)

    assert str(tmp_path) in refusal(capsys, *command)


@pytest.mark.parametrize(
    "command",
    [["token", "list"], CREATE, ["token", "revoke", "x"]],
    ids=["list", "create", "revoke"],
)
def test_a_path_with_no_database_is_one_line_and_makes_none(
    tmp_path: Path, monkeypatch: Environment, capsys: Output, command: list[str]
) -> None:
    mistyped = tmp_path / "mistyped.db"
    set_database(monkeypatch, mistyped)

    line = refusal(capsys, *command)

    assert f"There is no database {mistyped}" in line
    assert "TICKET_ACTIVITY_DATABASE_URL" in line
    assert not mistyped.exists()


@pytest.mark.parametrize("command", [["token", "list"], ["backup", "x.db"], ["migrate"]])
def test_the_default_path_is_told_in_full(
    tmp_path: Path, monkeypatch: Environment, capsys: Output, command: list[str]
) -> None:
    monkeypatch.delenv("TICKET_ACTIVITY_DATABASE_URL", raising=False)
    monkeypatch.chdir(tmp_path)
    if command == ["migrate"]:
        (tmp_path / "data/ticket-activity.db").mkdir(parents=True)

    assert str(tmp_path / "data/ticket-activity.db") in refusal(capsys, *command)


@pytest.mark.parametrize("command", [["token", "list"], CREATE], ids=["list", "create"])
def test_a_database_that_was_never_migrated_is_one_line(
    tmp_path: Path, monkeypatch: Environment, capsys: Output, command: list[str]
) -> None:
    (tmp_path / "empty.db").touch()
    set_database(monkeypatch, tmp_path / "empty.db")

    assert "empty.db" in refusal(capsys, *command)


# Who may read the database


def test_a_new_database_and_its_journals_are_for_their_owner_alone(
    file: Path, capsys: Output
) -> None:
    before = os.umask(0o022)
    try:
        run(capsys, "migrate")
        with closing(sqlite3.connect(file)) as connection, connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("CREATE TABLE other (id INTEGER)")
            made = {path.name: stat.S_IMODE(path.stat().st_mode) for path in file.parent.iterdir()}
    finally:
        os.umask(before)

    assert made == dict.fromkeys([file.name, f"{file.name}-wal", f"{file.name}-shm"], 0o600)


def test_a_database_that_every_user_may_read_is_named_and_kept(
    database: Path, capsys: Output
) -> None:
    [token] = run(capsys, *CREATE)
    database.chmod(0o644)

    assert main(["migrate"]) == 0

    [line] = capsys.readouterr().err.splitlines()
    assert str(database) in line
    assert "chmod 600" in line
    assert viewer_of(database, token)


def test_a_database_newer_than_the_code_is_one_line(database: Path, capsys: Output) -> None:
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = 'ffff'")

    line = refusal(capsys, "migrate")

    assert "newer than this code" in line
    assert "ffff" in line


def test_migrating_again_keeps_what_is_there(database: Path, capsys: Output) -> None:
    [token] = run(capsys, *CREATE)

    assert run(capsys, "migrate") == []

    assert viewer_of(database, token)


def test_compact_leaves_nothing_of_what_was_deleted(database: Path, capsys: Output) -> None:
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA secure_delete = 0")
        connection.execute("CREATE TABLE past (text)")
        connection.execute("INSERT INTO past VALUES (?)", ("swordfish" * 1000,))
        connection.commit()
        connection.execute("DROP TABLE past")
        connection.commit()
    assert b"swordfish" in database.read_bytes()

    assert run(capsys, "compact") == []

    assert b"swordfish" not in database.read_bytes()
    assert main(["migrate"]) == 0


def test_compact_says_when_somebody_reads_the_file(database: Path, capsys: Output) -> None:
    with closing(sqlite3.connect(database, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM ticket").fetchall()
        assert main(["compact"]) == 1

    assert "its write-ahead log still holds what was deleted" in capsys.readouterr().err


def test_a_reader_who_has_enough_is_no_error() -> None:
    command = subprocess.Popen(
        [Path(sys.executable).with_name("ticket-activity"), "export-schema"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert command.stdout
    command.stdout.close()

    _, error = command.communicate()

    assert (command.returncode, error) == (0, b"")
