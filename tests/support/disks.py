"""Disks that are small, slow, watched or broken, for one process of the service alone."""

import errno
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.process import Process


def on_small_disk(folder: Path, mebibytes: int = 2) -> list[str]:
    """Return a command that runs another one, for which the folder is a small disk."""
    mount = f'mount -t tmpfs -o size={mebibytes}m tmpfs {folder} && exec "$@"'
    return ["unshare", "--map-root-user", "--mount", "sh", "-c", mount, "sh"]


def seen_by(process: Process, file: Path) -> Path:
    """Return the path, for us, of a file on a disk that only the process sees."""
    return Path(f"/proc/{process.popen.pid}/root{file}")


def copy_database(process: Process, file: Path, target: Path) -> None:
    """Copy the files of a database from a disk that only the process sees, which stands still."""
    process.popen.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.popen.pid, os.WSTOPPED | os.WNOWAIT)
    try:
        for end in ("", "-wal"):
            source = seen_by(process, file.with_name(file.name + end))
            if source.exists():
                shutil.copyfile(source, target.with_name(target.name + end))
    finally:
        process.popen.send_signal(signal.SIGCONT)


def fill(ballast: Path) -> None:
    """Write until nothing more fits."""
    try:
        with ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
    except OSError as full:
        if full.errno != errno.ENOSPC:
            raise


def strace_refusal() -> str | None:
    """Return why the system calls of another process cannot be watched here; None if they can."""
    if not shutil.which("strace"):
        return "strace is not installed"
    scope = Path("/proc/sys/kernel/yama/ptrace_scope")
    if os.geteuid() != 0 and scope.exists() and scope.read_text().strip() != "0":
        return "this user may watch no process but its own children (ptrace_scope)"
    tried = subprocess.run(
        ["strace", "-f", "-o", os.devnull, "true"], capture_output=True, text=True, check=False
    )
    return tried.stderr.strip().splitlines()[-1] if tried.returncode else None


@contextmanager
def attached(process: Process, *options: str) -> Iterator[None]:
    """Let strace watch the system calls of a running service, or meddle with them."""
    pid = process.popen.pid
    command = ["strace", "-f", *options, "-p", str(pid)]
    tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert tracer.stderr
    line = tracer.stderr.readline()
    assert "attached" in line, line
    try:
        yield
    finally:
        tracer.terminate()
        tracer.communicate()
