"""Kills, starves and damages the service under load, and looks whether anything is lost.

Each fault is done to real processes on an SQLite file of their own, on loopback, and prints one
line with its figure. It exits with 1 when a write that was acknowledged is lost, or an answer, a
stream or a start was wrong. Some faults need Linux, `strace`, or the right to mount; they are
skipped with the reason elsewhere.
"""

import argparse
import asyncio
import signal
import sys
import time
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import faults_disks as disks
import faults_processes as processes
from faults_options import Found, Options, Skipped

FAULTS: Final[dict[str, Callable[[Options, Path], Coroutine[Any, Any, Found]]]] = {
    "kill": partial(processes.kill, workers=1),
    "kill-workers": partial(processes.kill, workers=2),
    "restart": processes.restart,
    "reload": processes.reload,
    "two-services": processes.two_services,
    "clock-back": processes.clock_back,
    "synced": disks.synced,
    "slow-disk": disks.slow,
    "full-disk": disks.full,
    "read-only": disks.read_only,
    "damaged": disks.damaged,
}
_SHOWN: Final = 10


def main() -> int:
    options, names = _read_options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))  # and clean up
    results = [_run(name, options) for name in names]
    return int(not all(results))


def _run(name: str, options: Options) -> bool:
    """Do one fault to a service, and print what is found. Return whether nothing is wrong."""
    began = time.monotonic()
    with TemporaryDirectory(prefix="faults-") as folder:
        try:
            found = asyncio.run(FAULTS[name](options, Path(folder)))
        except Skipped as reason:
            print(f"{name}: skipped, {reason}", flush=True)
            return True
        finally:
            options.end_all()
    verdict = f"{len(found.wrong)} WRONG" if found.wrong else "nothing wrong"
    seconds = time.monotonic() - began
    print(f"{name}: {found.figure}; {verdict} ({seconds:.0f} s)", flush=True)
    for line in found.wrong[:_SHOWN]:
        print(f"  WRONG: {line}", file=sys.stderr)
    return not found.wrong


def _read_options() -> tuple[Options, list[str]]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("faults", nargs="*", metavar="FAULT", help=f"of {', '.join(FAULTS)}")
    parser.add_argument("--rounds", type=int, default=100, help="how often it is killed, each")
    parser.add_argument("--restarts", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=10, help="of load, where time decides")
    parser.add_argument("--flips", type=int, default=20, help="how many bytes are damaged")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--short", action="store_true", help="each once, as the tests do it")
    given = parser.parse_args()
    if unknown := set(given.faults) - set(FAULTS):
        parser.error(f"there is no fault {', '.join(sorted(unknown))}")
    options = Options(given.rounds, given.restarts, given.seconds, given.flips, given.clients)
    if given.short:
        options = Options(rounds=1, restarts=1, seconds=0.5, flips=1, clients=given.clients)
    return options, given.faults or list(FAULTS)


if __name__ == "__main__":
    sys.exit(main())
