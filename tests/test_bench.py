"""scripts/bench measures, checks what it measures, and says so."""

import json
import os
import subprocess
from itertools import product
from pathlib import Path
from typing import Any

from tests.support.process import ROOT


def bench(folder: Path, *options: str, **environment: str) -> tuple[int, str, Any]:
    """Run the bench; return its exit status, what it printed, and the JSON it wrote."""
    file = folder / "bench.json"
    done = subprocess.run(
        [ROOT / "scripts/bench", "--quick", "--json", file, *options],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert file.exists(), done.stderr
    return done.returncode, done.stdout, json.loads(file.read_text())


def test_a_quick_run_checks_answers_writes_and_deliveries(tmp_path: Path) -> None:
    operations = ["update", "page"]

    status, printed, result = bench(tmp_path, "--only", "update,page,delivery")

    measured = result["measurements"]
    assert {(one["operation"], one["contender"]) for one in measured} == set(
        product(operations, ["service", "textbook", "ceiling"])
    )
    assert [one["first_bad"] for one in measured] == [""] * len(measured)
    # On a busy machine the textbook may need more than the second that is measured.
    assert all(one["good"] > 0 for one in measured if one["contender"] != "textbook")
    assert result["acknowledged"] == {"acknowledged": measured[0]["good"], "missing": 0}
    assert result["delivery"]["lost"] == 0
    assert "| `updateTicketActivity` | 8 | **" in printed
    assert status == 0


def test_a_wrong_answer_is_counted_shown_and_fails_the_run(tmp_path: Path) -> None:
    tiny = "100"

    status, printed, result = bench(
        tmp_path, "--only", "page", TICKET_ACTIVITY_MAX_RESPONSE_BYTES=tiny
    )

    [of_service] = [one for one in result["measurements"] if one["contender"] == "service"]
    assert of_service["good"] == 0
    assert of_service["bad"] > 0
    assert f"service, page by 8: {of_service['bad']:,} answers were not right" in printed
    assert status == 1
