"""The faults of `scripts/faults`, each once: what other tests have no test for. Process tests."""

import re
import shutil
import subprocess

import pytest

from tests.support.disks import strace_refusal
from tests.support.process import ROOT

NEEDS_STRACE = pytest.mark.skipif(
    strace_refusal() is not None, reason="strace cannot watch processes here"
)


def found(fault: str) -> str:
    """Do a fault, and return what it found; fail where anything was wrong."""
    done = subprocess.run(
        [ROOT / "scripts/faults", fault, "--short"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@NEEDS_STRACE
def test_every_answered_write_was_synced_before() -> None:
    said = re.search(r"(\d+) answered writes, each sent after a sync", found("synced"))

    assert said
    assert int(said[1]) > 0


@NEEDS_STRACE
@pytest.mark.skipif(not shutil.which("unshare"), reason="unshare is not installed")
def test_a_disk_that_turns_read_only_refuses_writes_and_loses_nothing() -> None:
    assert "writes refused as STORAGE_UNWRITABLE" in found("read-only")
