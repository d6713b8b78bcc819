"""Measures this service beside a textbook service and a ceiling, in one run, ratios first.

Absolute figures are those of the machine; only what stands in one table can be compared.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Final

import uvloop

from benchmark import contenders
from benchmark.acknowledged import look_up
from benchmark.comparison import Comparison
from benchmark.contenders import ROOT
from benchmark.dashboard import ask_panels
from benchmark.dataset import read_dataset
from benchmark.delivery import DELIVERY, Plan, deliver
from benchmark.engines import measure_engines
from benchmark.load import describe_generator
from benchmark.operations import OPERATIONS
from benchmark.report import PICTURE, is_sound, print_result, write_readme
from benchmark.timelines import measure_timelines

CLIENTS: Final = (1, 8, 64, 256)
FULL: Final = {"activities": 5000, "tickets": 2000}
QUICK: Final = {"activities": 200, "tickets": 100}
SUBSCRIBERS_PER_TICKET: Final = 10
DELIVERIES_PER_SECOND: Final = 2000
DASHBOARD_SECONDS: Final = 120


def numbers(text: str) -> list[int]:
    found = [int(part) for part in text.split(",")]
    if min(found) < 1:
        raise ValueError
    return found


def names(text: str) -> list[str]:
    found = text.split(",")
    if not {*found} <= {*OPERATIONS, DELIVERY}:
        raise ValueError
    return found


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    everything = ",".join((*OPERATIONS, DELIVERY))
    add = parser.add_argument
    add("--seconds", type=float, default=5, help="of each measurement (default: 5)")
    add("--clients", type=numbers, default=list(CLIENTS), help="default: 1,8,64,256")
    add("--only", type=names, default=names(everything), help=f"default: {everything}")
    add("--subscribers", type=int, default=5000, help="of the delivery (default: 5000)")
    add("--quick", action="store_true", help="show that all of it works, in some 20 seconds")
    add("--json", type=Path, default=Path("bench.json"), help="file to write (default: bench.json)")
    add("--readme", action="store_true", help="write table and picture for README.md")
    add("--dashboard", action="store_true", help="draw the dashboard under load instead")
    add("--postgresql", action="store_true", help="measure it on SQLite and PostgreSQL instead")
    add("--timeline", type=Path, metavar="FILE", help="measure pages of a seeded file instead")
    options = parser.parse_args()
    if options.readme and (options.quick or options.postgresql):
        parser.error("--readme is for the figures of a full run, without --quick or --postgresql")
    if options.quick:
        options.seconds, options.clients, options.subscribers = 1, [8], 100
    return options


def fsync_milliseconds(folder: Path) -> float:
    """Return the median time that the file system needs to sync a page that was appended."""
    taken = []
    with (folder / "fsync").open("wb", buffering=0) as file:
        for _ in range(50):
            file.write(bytes(4096))
            began = time.perf_counter()
            os.fsync(file.fileno())
            taken.append((time.perf_counter() - began) * 1000)
    return median(taken)


def describe_run(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    return {
        "at": datetime.now(UTC).isoformat(timespec="minutes"),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}",
        "python": platform.python_version(),
        "load_before": round(os.getloadavg()[0], 1),
        "fsync_ms": round(fsync_milliseconds(folder), 3),
        "generator": describe_generator(),
        "seconds": options.seconds,
    }


def compare(options: argparse.Namespace, folder: Path, file: Path, token: str) -> dict[str, Any]:
    """Measure the contenders in turn at each operation, so that what disturbs one disturbs all."""
    wanted = [name for name in options.only if name != DELIVERY]
    found = []
    with ExitStack() as servers:
        comparison = Comparison.start(folder, file, token, servers)
        comparison.log.touch()
        for clients, name in product(options.clients, wanted):
            print(f"{name} by {clients}", file=sys.stderr)
            found += comparison.measure(name, clients, options.seconds)
    return {
        "measurements": [asdict(one) for one in found],
        "acknowledged": asdict(look_up(file, comparison.log)),
    }


def measure_delivery(options: argparse.Namespace, file: Path, token: str) -> dict[str, Any]:
    """Measure a fresh process, so that its memory is that of its subscribers."""
    tickets = max(1, options.subscribers // SUBSCRIBERS_PER_TICKET)
    rate = DELIVERIES_PER_SECOND / SUBSCRIBERS_PER_TICKET
    plan = Plan(options.subscribers, tickets, rate, options.seconds)
    entries = read_dataset(file).entries
    limit = str(options.subscribers)
    with contenders.serve(file, max_subscriptions_per_token=limit) as server:
        return {"delivery": asdict(uvloop.run(deliver(server, token, entries, plan)))}


def run(options: argparse.Namespace) -> dict[str, Any]:
    with TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        file, copied = folder / "service.db", folder / "delivery.db"
        contenders.seed(file, **(QUICK if options.quick else FULL))
        token = contenders.create_token(file, *contenders.ALL_SCOPES)
        shutil.copy(file, copied)
        result = describe_run(options, folder)
        if options.postgresql:
            return result | measure_engines(file, token, options.only, options.seconds, folder)
        if {*options.only} - {DELIVERY}:
            result |= compare(options, folder, file, token)
        if DELIVERY in options.only:
            result |= measure_delivery(options, copied, token)
    return result


def draw(module: str, result: Path, picture: Path) -> None:
    """Draw the picture in a process of its own: its packages are not those of the service."""
    python = ROOT / ".venv/bench/bin/python"
    command = [str(python), "-m", f"benchmark.{module}", str(result.resolve()), str(picture)]
    subprocess.run(command, check=True)


def draw_dashboard() -> None:
    with TemporaryDirectory(prefix="dashboard-") as name:
        answers = Path(name) / "answers.json"
        answers.write_text(json.dumps(ask_panels(Path(name), DASHBOARD_SECONDS)))
        draw("panels", answers, ROOT / ".github/dashboard.png")


def main() -> int:
    options = parse()
    if options.timeline:
        measure_timelines(options.timeline)
        return 0
    if options.dashboard:
        draw_dashboard()
        return 0
    result = run(options)
    options.json.write_text(json.dumps(result, indent=1))
    print_result(result)
    if options.readme:
        write_readme(result, ROOT / "README.md")
        draw("picture", options.json, ROOT / PICTURE)
    return 0 if is_sound(result) else 1


if __name__ == "__main__":
    sys.exit(main())
