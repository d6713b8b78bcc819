"""Faults of disks: whether writes are synced, a slow, full, read-only disk, and damaged files."""

import asyncio
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from statistics import median, quantiles
from typing import Final

from faults_options import Found, Options, Skipped
from faults_processes import url_of

from tests.support.disks import (
    attached,
    copy_database,
    fill,
    on_small_disk,
    seen_by,
    strace_refusal,
)
from tests.support.load import Load, Stored, graphql, stored_in, under_load, wait_until_served
from tests.support.process import ROOT, environment

TRACED_SECONDS: Final = 5
"""A trace of 5 s has some 100 MB."""

LEAST_WRITES: Final = 20
SYNC_MS: Final = 200
DISK_MIB: Final = 64
REFUSED: Final = 50
"""How many refused writes must be seen."""

READ: Final = "query Read($id: ID!) { ticket(id: $id) { id changesCursor } }"
UUIDS: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
CALL: Final = re.compile(r"(\d+) +(?:<\.\.\. )?(\w+)(?:\(\d+<([^>]*)>| resumed>)?")


def _require_strace() -> None:
    if reason := strace_refusal():
        raise Skipped(reason)


# Synced


async def synced(options: Options, folder: Path) -> Found:
    """Watch the system calls: nothing may be sent of a write before a sync that followed it."""
    _require_strace()
    file, trace = folder / "tickets.db", folder / "trace"
    calls = "trace=pwrite64,fdatasync,fsync,write,writev,sendto,sendmsg"
    watching = ("--decode-fds=path", "--string-limit=8192", "-e", calls, "-o", str(trace))
    with options.serve(file, log=folder / "log") as process:
        async with under_load([process.origin], process.token, options.clients) as load:
            with attached(process, *watching):
                begun = len(load.acknowledged)
                await asyncio.sleep(min(options.seconds, TRACED_SECONDS))
                await _until_written(load, begun + LEAST_WRITES)
                watched = {message for _, _, message in load.acknowledged[begun:]}
            wrong = await load.finish(url_of(file))
    order = _Order()
    with trace.open() as lines:
        for number, line in enumerate(lines):
            order.read(number, line)
    unsynced = [message for message in watched if not order.is_synced(message)]
    figure = (
        f"{len(watched):,} answered writes, each sent after a sync of the write-ahead log that "
        f"followed it, by {len(order.syncs):,} syncs seen from outside"
    )
    return Found(figure, wrong + [f"{message} was sent before a sync" for message in unsynced])


async def _until_written(load: Load, count: int) -> None:
    """Wait until so many writes have been acknowledged, however busy the machine is."""
    async with asyncio.timeout(60):
        while len(load.acknowledged) < count:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


class _Order:
    """The order of the system calls of a trace: line numbers by the message that they carry."""

    def __init__(self) -> None:
        self.logged: dict[str, int] = {}
        self.sent: dict[str, int] = {}
        self.syncs: list[tuple[int, int]] = []
        self._syncing: dict[str, int] = {}

    def read(self, number: int, line: str) -> None:
        match = CALL.match(line)
        if not match:
            return
        pid, call, path = match.groups()
        if call in {"fsync", "fdatasync"}:
            self._read_sync(number, line, pid, path)
        elif call == "pwrite64":
            if path and path.endswith("-wal"):
                for message in UUIDS.findall(line):
                    self.logged.setdefault(message, number)
        elif path and path.startswith(("socket:", "TCP:", "TCPv6:")):
            for message in UUIDS.findall(line):
                self.sent.setdefault(message, number)

    def _read_sync(self, number: int, line: str, pid: str, path: str | None) -> None:
        if path and path.endswith("-wal"):
            self._syncing[pid] = number
        if "unfinished" not in line:
            began = self._syncing.pop(pid, None)
            if began is not None and re.search(r"= 0\b", line):
                self.syncs.append((began, number))

    def is_synced(self, message: str) -> bool:
        logged, sent = self.logged.get(message), self.sent.get(message)
        if logged is None or sent is None:
            return False
        return any(logged < began and ended < sent for began, ended in self.syncs)


# Slow


async def slow(options: Options, folder: Path) -> Found:
    """Let each sync of the disk take long. Reads must not wait for it, writes must share it."""
    _require_strace()
    file = folder / "tickets.db"
    delay = ("-e", "trace=fdatasync", "-e", f"inject=fdatasync:delay_enter={SYNC_MS * 1000}")
    with options.serve(file, log=folder / "log") as process:
        async with under_load([process.origin], process.token, options.clients) as load:
            before = median(await _read(load, options.seconds / 2))
            with attached(process, "-o", "/dev/null", *delay):
                begun = len(load.acknowledged)
                reads = await _read(load, options.seconds)
                written = len(load.acknowledged) - begun
                await _until_written(load, begun + LEAST_WRITES)
            wrong = await load.finish(url_of(file))
    if median(reads) > before + SYNC_MS / 2:
        wrong.append(f"a read takes {median(reads):.0f} ms")
    figure = (
        f"syncs of {SYNC_MS} ms: {written / options.seconds:.0f} writes/s of {options.clients} "
        f"clients, none refused, reads in {median(reads):.1f} ms (median of {len(reads):,}, p99 "
        f"{quantiles(reads, n=100)[-1]:.0f} ms; without the delay {before:.1f} ms)"
    )
    return Found(figure, wrong)


async def _read(load: Load, seconds: float) -> list[float]:
    """Read for a while, one read after the other; return how long each took, in ms."""
    taken: list[float] = []
    end = time.monotonic() + seconds
    async with load.client(0) as http:
        while (began := time.monotonic()) < end or len(taken) < 2:  # noqa: PLR2004
            code, _ = await graphql(http, READ, id=load.tickets[0])
            taken.append((time.monotonic() - began) * 1000)
            if code != "ok":
                load.unexpected.append(f"a read was answered {code}")
    return taken


# Full, read-only


async def full(options: Options, folder: Path) -> Found:
    """Fill the disk under load, then make room again."""
    if not shutil.which("unshare"):
        raise Skipped("unshare is not installed")
    disk = folder / "disk"
    disk.mkdir()
    file, copy = disk / "tickets.db", folder / "copy.db"
    try:
        process = options.serve(file, within=on_small_disk(disk, DISK_MIB), log=folder / "log")
    except AssertionError:
        raise Skipped("this user may mount nothing") from None
    ballast = seen_by(process, disk / "ballast")
    with process:
        async with under_load([process.origin], process.token, options.clients) as load:
            await _settle(load)
            fill(ballast)
            read = await _refuse(load, "STORAGE_FULL")
            ballast.unlink()
            seconds = await _settle(load)
            load.is_over = True
            await asyncio.gather(*load.writers)
            copy_database(process, file, copy)
            wrong = await load.finish(url_of(copy))
    figure = (
        f"{load.outcomes['STORAGE_FULL']:,} writes refused as STORAGE_FULL, {read:,} reads "
        f"answered meanwhile, writes again {seconds:.1f} s after there was room, "
        f"{len(load.acknowledged):,} acknowledged writes looked up"
    )
    return Found(figure, wrong)


async def read_only(options: Options, folder: Path) -> Found:
    """Refuse what is written to the disk under load, as a file system does that turned read-only.

    Then let a service start on one.
    """
    _require_strace()
    file = folder / "tickets.db"
    refusing = ("-e", "trace=pwrite64", "-e", "inject=pwrite64:error=EROFS")
    with options.serve(file, log=folder / "log") as process:
        async with under_load([process.origin], process.token, options.clients) as load:
            await _settle(load)
            with attached(process, "-o", "/dev/null", *refusing):
                read = await _refuse(load, "STORAGE_UNWRITABLE")
            seconds = await _settle(load)
            wrong = await load.finish(url_of(file))
    wrong += _wrong_start_on_read_only(folder, file)
    figure = (
        f"{load.outcomes['STORAGE_UNWRITABLE']:,} writes refused as STORAGE_UNWRITABLE, {read:,} "
        f"reads answered meanwhile, writes again {seconds:.1f} s after it was writable, "
        f"{len(load.acknowledged):,} acknowledged writes looked up; a start on a read-only disk is "
        "refused in one line"
    )
    return Found(figure, wrong)


def _wrong_start_on_read_only(folder: Path, file: Path) -> list[str]:
    disk = folder / "read-only"
    disk.mkdir()
    mount = (
        f"mount -t tmpfs tmpfs {disk} && cp {file} {disk}/tickets.db && "
        f'mount -o remount,ro {disk} && exec "$@"'
    )
    within = ["unshare", "--map-root-user", "--mount", "sh", "-c", mount, "sh"]
    status, line = _refusal(disk / "tickets.db", within)
    return [] if status == 1 and "cannot be written" in line else [f"{status}: {line}"]


async def _settle(load: Load) -> float:
    """Wait until writes are answered, and let the clients have no other answer from then on."""
    began = time.monotonic()
    await wait_until_served(load)
    seconds = time.monotonic() - began
    await asyncio.sleep(0.5)
    load.is_disturbed = False
    return seconds


async def _refuse(load: Load, code: str) -> int:
    """Wait until many writes were refused with a code, and no other; return how many reads were."""
    load.is_disturbed, load.allowed = True, {code}
    before, reads = load.outcomes[code], 0
    async with asyncio.timeout(60):
        while load.outcomes[code] < before + REFUSED:
            reads += len(await _read(load, 0.1))
    return reads


# Damaged


async def damaged(options: Options, folder: Path) -> Found:
    """Cut a file off, or flip a byte of it, and start. What is damaged must not be served."""
    file = folder / "tickets.db"
    with options.serve(file, log=folder / "log") as process:
        async with under_load([process.origin], process.token, options.clients) as load:
            await asyncio.sleep(min(options.seconds, 2))
            wrong = await load.finish(url_of(file))
    whole = await stored_in(url_of(file))
    size = file.stat().st_size
    cuts = [_cut(length) for length in (4096, size // 2, size - 4096, size - 1)]
    pages = [_flip_header(Random(seed)) for seed in range(options.flips)]  # noqa: S311
    anywhere = [_flip(Random(seed)) for seed in range(options.flips)]  # noqa: S311
    cuts = cuts[: options.flips]
    for damage in cuts + pages:
        if (came_to := await _start_damaged(folder, file, damage, whole)) != "refused":
            wrong.append(f"{damage.__name__}: {came_to}")
    found = [await _start_damaged(folder, file, damage, whole) for damage in anywhere]
    figure = (
        f"{len(cuts)} truncated files and {len(pages)} with a flipped byte in the head of a page "
        f"refused; of {len(anywhere)} with one flipped anywhere {found.count('refused')} refused, "
        f"{found.count('unchanged')} served unchanged, {found.count('changed')} with a changed text"
    )
    return Found(figure, wrong)


Damage = Callable[[Path], None]


def _cut(length: int) -> Damage:
    def cut(file: Path) -> None:
        with file.open("rb+") as opened:
            opened.truncate(length)

    return cut


def _flip_at(file: Path, place: int) -> None:
    with file.open("rb+") as opened:
        opened.seek(place)
        [byte] = opened.read(1)
        opened.seek(place)
        opened.write(bytes([byte ^ 0xFF]))


def _flip(chance: Random) -> Damage:
    def flip(file: Path) -> None:
        _flip_at(file, chance.randrange(file.stat().st_size))

    return flip


def _flip_header(chance: Random) -> Damage:
    """Flip the byte that says what kind of page it is, of a page in use."""

    def flip_header(file: Path) -> None:
        kinds = {2, 5, 10, 13}  # https://www.sqlite.org/fileformat.html#b_tree_pages
        content = file.read_bytes()
        pages = [at for at in range(4096, len(content), 4096) if content[at] in kinds]
        _flip_at(file, chance.choice(pages))

    return flip_header


async def _start_damaged(folder: Path, file: Path, damage: Damage, whole: Stored) -> str:
    """Return what came of it: refused, unchanged, changed, or a refusal that does not help."""
    copy = folder / "damaged.db"
    for end in ("", "-wal", "-shm"):
        copy.with_name(copy.name + end).unlink(missing_ok=True)
    shutil.copyfile(file, copy)
    damage(copy)
    status, line = _refusal(copy)
    if status is not None:
        return "refused" if "damaged" in line and "restore" in line else f"{status}: {line}"
    try:
        found = await stored_in(url_of(copy))
    except Exception:  # whatever it is that cannot be read
        return "changed"
    is_same = (found.changes, found.entries) == (whole.changes, whole.entries)
    return "unchanged" if is_same else "changed"


def _refusal(file: Path, within: Sequence[str] = ()) -> tuple[int | None, str]:
    """Return the exit status, None if the service starts, and the last line that it wrote."""
    command = [*within, str(ROOT / ".venv/bin/ticket-activity"), "serve"]
    popen = subprocess.Popen(  # noqa: S603
        command, env=environment(file), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    line = ""
    with popen:
        assert popen.stderr  # noqa: S101
        for line in popen.stderr:
            if " serves http" in line:
                popen.send_signal(signal.SIGTERM)
                popen.communicate()
                return None, line
    return popen.returncode, line
