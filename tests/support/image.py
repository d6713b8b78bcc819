"""Carries out scripts/deploy/Dockerfile without Docker: files in folders, commands in a chroot.

In place of the base image are the folders of this machine and its Python, all read-only. The
packages of the lock are there beforehand, those of this environment: pip finds that they are the
locked ones, or fails.
"""

import json
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Final

from tests.support.process import ROOT

DOCKERFILE = ROOT / "scripts/deploy/Dockerfile"
MACHINE = ("bin", "dev", "etc", "lib", "lib64", "proc", "sbin", "usr")
PYTHON = Path(sys.base_prefix).resolve()
PACKAGES = sysconfig.get_path("purelib")


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [
        (name, rest.strip()) for name, _, rest in (line.partition(" ") for line in lines) if name
    ]


def context() -> Iterator[str]:
    """Yield the files that the builder is sent: those under version control, but .dockerignore."""
    listed = subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True)
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    for file in listed.splitlines():
        names = [file, *map(str, Path(file).parents)][:-1]
        verdicts = [
            pattern.startswith("!")
            for pattern in patterns
            if any(fnmatch(name, pattern.removeprefix("!").removeprefix("**/")) for name in names)
        ]
        if verdicts[-1]:
            yield file


@dataclass
class Stage:
    """The root of one stage, and what its instructions set."""

    root: Path
    environment: dict[str, str] = field(
        default_factory=lambda: {"PATH": "/base:/usr/sbin:/usr/bin:/sbin:/bin"}
    )
    folder: str = "/"
    user: str = "0:0"
    volumes: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)

    def begin(self) -> None:
        """Make the folders to mount on, and the commands of the base image."""
        for name in (*MACHINE, "base", str(PYTHON)[1:], PACKAGES[1:]):
            (self.root / name).mkdir(parents=True, exist_ok=True)
        for name, command in {"python": "", "pip": " -m pip"}.items():
            file = self.root / "base" / name
            python = f"{PYTHON}/bin/python3"
            file.write_text(f'#!/bin/sh\nexec {python}{command} "$@"\n')
            file.chmod(0o755)

    def at(self, path: str) -> Path:
        return self.root / str(Path(self.folder) / path)[1:]

    def popen(
        self, command: Sequence[str], *, is_read_only: bool = False, **options: Any
    ) -> "subprocess.Popen[str]":
        """Run a command in this root as the stage's user; only volumes can be written to."""
        binds = [(f"/{name}", name) for name in MACHINE]
        binds += [(str(PYTHON), str(PYTHON)[1:]), (PACKAGES, PACKAGES[1:])]
        root = shlex.quote(str(self.root))
        script = ["set -e", f"mount --bind {root} {root}"]
        for source, target in binds:
            script += [f"mount --bind {source} {root}/{target}"]
            if source not in {"/dev", "/proc"}:
                script += [f"mount -o remount,bind,ro {root}/{target}"]
        if is_read_only:
            script += [f"mount --bind {root}{each} {root}{each}" for each in self.volumes]
            script += [f"mount -o remount,bind,ro {root}"]
        settings = [f"{name}={value}" for name, value in self.environment.items()]
        enter = ["chroot", f"--userspec={self.user}", str(self.root), "env", "-i", *settings]
        inner = shlex.join([*enter, "sh", "-c", 'cd "$0" && exec "$@"', self.folder, *command])
        script += [f"exec {inner}"]
        return subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", "\n".join(script)], text=True, **options
        )

    def run(self, command: Sequence[str], **options: Any) -> str:
        popen = self.popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)
        printed, _ = popen.communicate(timeout=120)
        assert popen.returncode == 0, printed
        return printed


def build(folder: Path) -> Stage:
    """Carry out every instruction, and return the last stage."""
    stages: list[Stage] = []
    for name, rest in instructions():
        if name == "FROM":
            stages.append(Stage(folder / str(len(stages))))
            stages[-1].begin()
        elif name == "COPY" and rest.startswith("--from=build "):
            _, source, target = rest.split()
            shutil.copytree(stages[0].at(source), stages[-1].at(target), symlinks=True)
        elif name != "ARG":
            assert name in _CARRY_OUT, f"nothing carries out {name}"
            _CARRY_OUT[name](stages[-1], rest)
    return stages[-1]


def _run(stage: Stage, command: str) -> None:
    if "--require-hashes" in command:  # pip finds what the lock names
        [packages] = stage.at("/opt/ticket-activity").glob("lib/python*/site-packages")
        (packages / "locked.pth").write_text(PACKAGES)
        command = f"PIP_NO_INDEX=1 {command}"
    stage.run(["sh", "-c", command])


def _set_folder(stage: Stage, folder: str) -> None:
    stage.folder = folder
    stage.at(".").mkdir(parents=True, exist_ok=True)


def _set_environment(stage: Stage, pairs: str) -> None:
    for pair in pairs.split():
        name, _, value = pair.partition("=")
        stage.environment[name] = value.replace("$PATH", stage.environment["PATH"])


def _set_health(stage: Stage, rest: str) -> None:
    stage.health = json.loads(rest.partition("CMD ")[2])


def _copy(stage: Stage, rest: str) -> None:
    """Copy files, or what is in a folder."""
    *sources, target = rest.split()
    sent = [*context()]
    for source in sources:
        found = [file for file in sent if file == source or file.startswith(f"{source}/")]
        assert found, f".dockerignore leaves {source} out"
        for file in found:
            within = str(Path(file).relative_to(source)) if file != source else Path(file).name
            copy = stage.at(target) / within
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / file, copy)


_CARRY_OUT: Final[dict[str, Callable[[Stage, str], None]]] = {
    "WORKDIR": _set_folder,
    "RUN": _run,
    "COPY": _copy,
    "ENV": _set_environment,
    "USER": lambda stage, user: setattr(stage, "user", user),
    "VOLUME": lambda stage, folder: stage.volumes.append(folder),
    "HEALTHCHECK": _set_health,
    "ENTRYPOINT": lambda stage, command: stage.command.extend(json.loads(command)),
    "CMD": lambda stage, arguments: stage.command.extend(json.loads(arguments)),
    "EXPOSE": lambda _stage, _port: None,
}
