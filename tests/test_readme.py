"""README.md says what the code says."""

import re
from pathlib import Path

from app.settings import ENV_PREFIX, Settings

README = (Path(__file__).parent.parent / "README.md").read_text()


def test_every_setting_is_in_the_table_with_its_default_and_meaning() -> None:
    rows = [
        f"| `{ENV_PREFIX}{name.upper()}` | `{field.default}` | {field.description} |"
        for name, field in Settings.model_fields.items()
    ]

    table = [line for line in README.splitlines() if line.startswith(f"| `{ENV_PREFIX}")]

    assert table == rows


def test_every_script_is_in_the_table() -> None:
    scripts = Path(__file__).parent.parent / "scripts"
    files = [file for file in scripts.iterdir() if file.is_file() and not file.suffix]
    names = {f"`scripts/{file.name}`" for file in files}

    assert {name for name in names if f"| {name} |" not in README} == {"`scripts/install`"}


def test_every_picture_is_there_and_small() -> None:
    pictures = re.findall(r"!\[[^]]+\]\(([^)]+)\)", README)

    assert pictures
    for picture in pictures:
        size = (Path(__file__).parent.parent / picture).stat().st_size
        assert size < 150_000, picture
