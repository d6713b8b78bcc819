"""Shows on a terminal how far a command is."""

import sys
from typing import Final

_BAR_WIDTH: Final = 30


def show_progress(step: str, done: int, total: int) -> None:
    """Draw a bar on a terminal."""
    if sys.stderr.isatty():
        bar = "#" * (_BAR_WIDTH * done // max(total, 1))
        end = "\n" if done >= total else ""
        line = f"\r{step:<36} [{bar:<{_BAR_WIDTH}}] {done:,} of {total:,}"
        print(line, end=end, file=sys.stderr, flush=True)
