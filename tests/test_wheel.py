"""The wheel of a release, installed where nothing else of this repository is."""

import os
import re
import subprocess
import sys
import sysconfig
import zipfile
from email.parser import HeaderParser
from importlib.metadata import version
from pathlib import Path

import httpx2
import pytest

from tests.support.process import ROOT, Process


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, as scripts/release makes it."""
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "flit_core.wheel", "--outdir", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    [file] = folder.iterdir()
    return file


@pytest.fixture(scope="module")
def command(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`ticket-activity` in an environment of its own, which has the dependencies of this one."""
    venv = tmp_path_factory.mktemp("installed") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    [packages] = venv.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    pip = [sys.executable, "-m", "pip", "--quiet", "--python", str(venv / "bin/python"), "install"]
    subprocess.run([*pip, "--no-index", "--no-deps", str(wheel)], check=True, capture_output=True)
    return venv / "bin/ticket-activity"


def test_the_wheel_serves_with_all_it_needs_in_an_empty_folder(
    command: Path, tmp_path: Path
) -> None:
    known = {name: value for name, value in os.environ.items() if "TICKET_ACTIVITY" not in name}
    environment = known | {"TICKET_ACTIVITY_PORT": "0"}
    told = subprocess.check_output([command, "--version"], env=environment, text=True)
    serving = [str(command), "serve", "--demo"]
    with Process.start(
        serving, env=environment, cwd=tmp_path, stderr=subprocess.DEVNULL
    ) as process:
        page = httpx2.get(f"{process.origin}/graphql", headers={"Accept": "text/html"})
        assets = re.findall(r'(?:src|href)="([^":]+)"', page.text)
        found = [httpx2.get(page.url.join(asset)) for asset in assets]

    assert told == f"ticket-activity {version('ticket-activity')}\n"
    assert len(assets) > 3
    assert {response.status_code for response in found} == {200}
    assert (tmp_path / "data/ticket-activity.db").exists()


def test_the_locks_beside_the_wheel_hold_every_package_it_requires(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith("/METADATA")]
        metadata = HeaderParser().parsestr(archive.read(name).decode())
    required = {
        (re.split(r"[^A-Za-z0-9-]", line)[0], *re.findall(r"extra == ['\"](\w+)", line))
        for line in metadata.get_all("Requires-Dist", [])
    }

    extras = ("postgresql", "redis", "opentelemetry")
    for lock, count in (("", 0), ("-postgresql", 1), ("-extras", 3)):
        text = (ROOT / f"scripts/requirements{lock}.txt").read_text()
        locked = set(re.findall(r"^([a-z0-9-]+)==", text, re.MULTILINE))
        assert locked >= {name for name, *extra in required if {*extra} <= {*extras[:count]}}
        assert text.count("--hash=") >= len(locked)
