"""The image of the service: every instruction of its file carried out, and what they make, run."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.support.image import DOCKERFILE, Stage, build, context
from tests.test_metrics import free_port

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount and change users")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return build(tmp_path_factory.mktemp("image"))


@pytest.fixture(scope="module")
def container(image: Stage) -> Iterator["subprocess.Popen[str]"]:
    """The image run with --read-only, on a port of its own."""
    image.environment["TICKET_ACTIVITY_PORT"] = free_port()
    running = image.popen(image.command, is_read_only=True)
    port = int(image.environment["TICKET_ACTIVITY_PORT"])
    with socket.socket() as attempt:
        while attempt.connect_ex(("127.0.0.1", port)):
            assert running.poll() is None
            time.sleep(0.05)
    yield running
    running.send_signal(signal.SIGTERM)
    assert running.wait(timeout=30) == 0


def test_the_container_serves_as_another_user_and_writes_to_its_volume_alone(
    image: Stage, container: "subprocess.Popen[str]"
) -> None:
    address = f"http://127.0.0.1:{image.environment['TICKET_ACTIVITY_PORT']}"
    page = httpx2.get(f"{address}/graphql", headers={"Accept": "text/html"}, timeout=60)
    healthy = image.run(image.health, is_read_only=True)
    status = Path(f"/proc/{container.pid}/status").read_text()

    assert page.status_code == 200
    assert healthy == '{"status":"ready"}\n'
    assert "Uid:\t65532\t65532" in status
    assert (image.root / "data/ticket-activity.db").stat().st_mode & 0o777 == 0o600
    assert (image.root / "data").stat().st_mode & 0o777 == 0o700
    refused = image.popen(["touch", "/x"], is_read_only=True, stderr=subprocess.PIPE)
    assert "Read-only file system" in refused.communicate()[1]


def test_the_image_has_what_any_setting_needs(image: Stage) -> None:
    """Each of these is refused where its extra is not installed."""
    settings = [
        "TICKET_ACTIVITY_DATABASE_URL=postgresql+asyncpg://service:secret@database/tickets",
        "TICKET_ACTIVITY_RATE_LIMIT_REDIS_URL=valkey://counts:6379/0",
        "TICKET_ACTIVITY_OPENTELEMETRY=true",
    ]

    checked = image.run(["env", *settings, "ticket-activity", "check-config"], is_read_only=True)

    assert checked.startswith("The settings are right.")


def test_the_image_is_sent_only_what_it_copies(image: Stage) -> None:
    folders = {file.partition("/")[0] for file in context()}

    assert folders == {"README.md", "app", "pyproject.toml", "scripts"}
    assert not [*image.root.glob("opt/ticket-activity/lib/python*/site-packages/pip")]


@pytest.mark.skipif(not shutil.which("hadolint"), reason="hadolint is not installed")
def test_hadolint_has_nothing_to_say() -> None:
    assert subprocess.run(["hadolint", DOCKERFILE], check=False).returncode == 0
