"""A small load generator, a process of its own, for machines without wrk.

Usage: python -m benchmark.generator WORKLOAD CLIENTS SECONDS; prints what load.lua prints.
"""

import asyncio
import json
import os
import random
import re
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles
from typing import Any, Final, TextIO

import uvloop

_PLACE: Final = re.compile("@[A-Z]+")
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@dataclass
class Run:
    """The requests to send and what came of them."""

    workload: dict[str, Any]
    ends_at: float
    log: TextIO
    number: int = 0
    good: int = 0
    bad: int = 0
    first_bad: str = ""
    latencies: list[float] = field(default_factory=list)

    def request(self) -> bytes:
        self.number += 1
        id_, ticket = random.choice(self.workload["entries"])
        values = {"@ID": id_, "@TICKET": ticket, "@NUMBER": str(self.number)}
        path, body = (
            _PLACE.sub(lambda found: values[found[0]], self.workload[part])
            for part in ("path", "body")
        )
        return http_request(self.workload["method"], path, self.workload["headers"], body)

    def take(self, status: int, body: bytes, milliseconds: float) -> None:
        text = body.decode()
        self.latencies.append(milliseconds)
        expected = all(each in text for each in self.workload["expected"])
        if status == 200 and expected and '"errors"' not in text:  # noqa: PLR2004
            self.good += 1
            self.log.write(f"{text}\n")
            return
        self.bad += 1
        self.first_bad = self.first_bad or f"{status} {text[:300]}"


def http_request(method: str, path: str, headers: dict[str, str], body: str) -> bytes:
    content = body.encode()
    fields = headers | {"Host": "127.0.0.1", "Content-Length": str(len(content))}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode() + content


async def read_response(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Read a response that says its length; return status and body."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = _LENGTH.search(head)
    body = await reader.readexactly(int(length[1])) if length else b""
    return int(head.split(b" ", 2)[1]), body


async def client(run: Run) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", run.workload["port"])
    while (began := time.perf_counter()) < run.ends_at:
        writer.write(run.request())
        status, body = await read_response(reader)
        run.take(status, body, (time.perf_counter() - began) * 1000)
    writer.close()


async def send(workload: dict[str, Any], clients: int, seconds: float, log: TextIO) -> str:
    began = time.perf_counter()
    random.seed(workload["seed"])
    run = Run(workload, began + seconds, log)
    await asyncio.gather(*(client(run) for _ in range(clients)))
    cuts = quantiles([*run.latencies, *run.latencies[:1]], n=100)
    taken = {"seconds": time.perf_counter() - began, "p50_ms": cuts[49], "p99_ms": cuts[98]}
    return json.dumps({"good": run.good, "bad": run.bad, **taken, "first_bad": run.first_bad})


def main(file: str, clients: str, seconds: str) -> None:
    workload = json.loads(Path(file).read_text())
    with Path(workload["log"] or os.devnull).open("a") as log:
        print(uvloop.run(send(workload, int(clients), float(seconds), log)))


if __name__ == "__main__":
    main(*sys.argv[1:])
