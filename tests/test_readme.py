"""README.md says what the code says."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

from app import errors
from app.errors import ServiceError
from app.graphql_server.errors import OPERATION_NOT_RESOLVED, PARSE_FAILED, VALIDATION_FAILED
from tests.support.process import ROOT, serve

README = (ROOT / "README.md").read_text()
ERROR_ROW = re.compile(r"^\| `([A-Z_]+)` \| (\d{3})[^|]* \| ([^|]+) \|$", re.MULTILINE)


def test_the_settings_are_those_of_the_code(tmp_path: Path) -> None:
    copy = Path(shutil.copy(ROOT / "README.md", tmp_path))

    subprocess.run([sys.executable, ROOT / "scripts/readme.py", copy], check=True)

    assert copy.read_text() == README, "run scripts/readme"


def test_the_table_of_errors_has_every_code_with_its_status_and_what_to_do() -> None:
    family = {
        (error.code, error.status)
        for error in vars(errors).values()
        if isinstance(error, type) and issubclass(error, ServiceError) and hasattr(error, "code")
    }
    language = {(code, 400) for code in (PARSE_FAILED, VALIDATION_FAILED, OPERATION_NOT_RESOLVED)}

    rows = [(code, int(status)) for code, status, _advice in ERROR_ROW.findall(README)]

    assert len(rows) == len(set(rows))
    assert set(rows) == family | language


def test_the_errors_open_with_their_tree() -> None:
    classes = [
        error
        for error in vars(errors).values()
        if isinstance(error, type) and issubclass(error, ServiceError)
    ]

    tree = re.findall(
        r"^ *([A-Z][A-Za-z]+)(?: +(\d{3}|expected))?", str(errors.__doc__), re.MULTILINE
    )

    assert {(name, status) for name, status in tree if status.isdigit()} == {
        (error.__name__, str(error.status)) for error in classes if hasattr(error, "status")
    }


def test_the_first_requests_are_answered_as_shown(tmp_path: Path) -> None:
    found = re.search(
        r"```sh\n(curl .+?)```\n\n```json\n(.+?)\n```.+?```sh\n(curl --request PUT .+?)```",
        README,
        re.DOTALL,
    )
    assert found
    command, shown, put = found.groups()

    with serve(tmp_path / "demo.db") as process:
        at_its_port = command.replace("http://127.0.0.1:8000", process.origin)
        another = at_its_port.replace("And another cable?", "And no cable?")
        put_at_its_port = put.replace("http://127.0.0.1:8000", process.origin)
        answer, again, conflict, changed, late = (
            subprocess.run(  # noqa: S602
                sent,
                shell=True,
                check=True,
                capture_output=True,
                text=True,
                env={"TOKEN": process.token},
            ).stdout
            for sent in (
                at_its_port,
                at_its_port,
                another,
                put_at_its_port,
                put_at_its_port.replace("off and on", "on and off"),
            )
        )

    assert json.loads(answer) == json.loads(again) == json.loads(shown)
    [error] = json.loads(conflict)["data"]["updateTicketActivity"]["userErrors"]
    assert error["code"] == "VERSION_CONFLICT"
    assert changed.startswith("HTTP/1.1 200 ")
    assert '\netag: "3"' in changed
    assert late.startswith("HTTP/1.1 412 ")
    assert "VERSION_CONFLICT" in late


def test_every_script_is_in_the_table() -> None:
    files = [file for file in (ROOT / "scripts").iterdir() if file.is_file() and not file.suffix]
    names = {f"`scripts/{file.name}`" for file in files}

    assert {name for name in names if f"| {name} |" not in README} == {"`scripts/install`"}


def test_every_file_that_it_names_exists() -> None:
    named = set(re.findall(r"\b((?:scripts|tests|app)/[a-z0-9_./-]*[a-z])", README))

    assert len(named) > 30
    assert {name for name in named if not (ROOT / name).exists()} == set()


def test_decisions_are_numbered_in_order() -> None:
    numbers = re.findall(r"^(\d+)\. ", README.partition("## Decisions\n")[2], re.MULTILINE)

    assert numbers == [str(number) for number in range(1, len(numbers) + 1)]


def test_every_picture_is_there_and_small() -> None:
    pictures = re.findall(r"!\[[^]]+\]\(([^)]+)\)", README)

    assert pictures
    for picture in pictures:
        size = (ROOT / picture).stat().st_size
        assert size < 150_000, picture


def test_every_link_within_it_leads_to_a_heading() -> None:
    text = re.sub(r"^```.*?^```", "", README, flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    anchors = {
        re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings
    }

    linked = set(re.findall(r"\]\(#([^)]+)\)", text))

    assert len(linked) > 20
    assert linked - anchors == set()
