"""Writes the tables of settings into README.md, between two markers, from `app.settings`."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from app.settings import ENV_PREFIX, Settings
from app.settings.section import Section

BEGIN: Final = "<!-- written by scripts/readme -->\n"
END: Final = "<!-- end of what scripts/readme writes -->\n"


def main() -> None:
    file = Path(sys.argv[1])
    file.write_text(with_settings(file.read_text()))


def with_settings(readme: str) -> str:
    """Return the text with the current settings between its markers. Raise ValueError without."""
    before, rest = readme.split(BEGIN)
    _, after = rest.split(END)
    return "".join([before, BEGIN, *_lines(), "\n", END, after])


def _lines() -> Iterator[str]:
    for section in (each for each in Settings.__bases__ if issubclass(each, Section)):
        yield f"\n### {section.heading}\n\n| setting | default | meaning |\n|---|---|---|\n"
        for name, field in section.model_fields.items():
            setting = f"`{ENV_PREFIX}{name.upper()}`"
            yield f"| {setting} | {_code(field.default)} | {field.description} |\n"


def _code(default: object) -> str:
    """Return a default as it is written in the environment; a dash for none."""
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    return "–" if default in (None, "", ()) else f"`{default}`"


if __name__ == "__main__":
    main()
