"""Puts load on a contender: by wrk where it is installed, by a generator of our own elsewhere.

Each of so many clients keeps one connection and sends its next request when the last is answered.
"""

import json
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from random import SystemRandom
from typing import Any, Final

from benchmark.operations import Operation

_LUA: Final = Path(__file__).with_name("load.lua")
_ANSWER_TIMEOUT: Final = "60s"
"""So long a client waits for an answer: everything that comes is counted with its latency."""


@dataclass(frozen=True)
class Answers:
    """What the clients got; the latencies are those of all answers."""

    good: int
    bad: int
    seconds: float
    p50_ms: float
    p99_ms: float
    first_bad: str
    """Status and body of the first answer that was not right."""


def has_wrk() -> bool:
    return shutil.which("wrk") is not None


def describe_generator() -> str:
    if not has_wrk():
        return (
            "a generator of our own in Python, since wrk is not installed (it limits the ceiling)"
        )
    version = subprocess.run(["wrk", "--version"], capture_output=True, text=True, check=False)
    return " ".join((version.stdout + version.stderr).split()[:2])


@dataclass(frozen=True)
class Workload:
    """Requests of one operation to one address, for the entries of a dataset in random order."""

    operation: Operation
    port: int
    token: str
    entries: list[tuple[str, str]]
    log: Path | None
    """Where to keep the bodies of right answers, a line each."""

    def values(self) -> dict[str, Any]:
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self.token}"}
        return asdict(self.operation) | {
            "port": self.port,
            "headers": headers,
            "entries": self.entries,
            "log": self.log and str(self.log),
            "seed": SystemRandom().randrange(2**31),
        }


def put_load(workload: Workload, clients: int, seconds: float, folder: Path) -> Answers:
    """Let clients send requests for some seconds; wrk knows whole seconds only."""
    run = _run_wrk if has_wrk() else _run_generator
    output = run(workload, clients, seconds, folder)
    return Answers(**json.loads(output.strip().splitlines()[-1]))


def _run_wrk(workload: Workload, clients: int, seconds: float, folder: Path) -> str:
    (folder / "workload.lua").write_text(f"workload = {_lua(workload.values())}\n")
    duration = f"{max(1, round(seconds))}s"
    command = ["wrk", "-t1", f"-c{clients}", f"-d{duration}", "--timeout", _ANSWER_TIMEOUT]
    address = f"http://127.0.0.1:{workload.port}"
    return _output([*command, "-s", str(_LUA), address], folder)


def _run_generator(workload: Workload, clients: int, seconds: float, folder: Path) -> str:
    file = folder / "workload.json"
    file.write_text(json.dumps(workload.values()))
    command = [sys.executable, "-m", "benchmark.generator", str(file), str(clients), str(seconds)]
    return _output(command, folder)


def _output(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed: {done.stdout}{done.stderr}")
    return done.stdout


def _lua(value: Any) -> str:
    """Write a JSON value as Lua; an ASCII text without control characters is the same in both."""
    match value:
        case None:
            return "nil"
        case dict():
            return (
                "{" + ",".join(f"[{_lua(key)}]={_lua(each)}" for key, each in value.items()) + "}"
            )
        case list() | tuple():
            return "{" + ",".join(map(_lua, value)) + "}"
    return json.dumps(value)
