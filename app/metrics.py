"""What this process measures, as one snapshot; snapshots of several processes add up."""

import gc
import resource
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Final

from app.admission import Admission
from app.graphql_server.execution import Executor
from app.log import events
from app.measures import SECONDS, SIZES, Histogram, Requests
from app.shared_counts import SharedCounts
from app.timeline import Timeline

Snapshot = dict[tuple[str, tuple[str, ...]], list[float]]
"""Values by metric and labels: one number, or of a histogram the sum and the count per bound."""

Measure = Callable[[], Snapshot]

_PAGE_BYTES: Final = resource.getpagesize()


class Kind(Enum):
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()


_REQUEST: Final = ("door", "operation", "status")

METRICS: Final = {
    "ticket_activity_request_duration_seconds": Metric(
        Kind.HISTOGRAM,
        "Time from the head of a request to the end of its response; of a stream, its life.",
        _REQUEST,
        SECONDS,
    ),
    "ticket_activity_rate_limited": Metric(
        Kind.COUNTER, "Requests and operations refused for a limit of rates.", ("door",)
    ),
    "ticket_activity_slowed_authentications": Metric(
        Kind.COUNTER, "Requests without a valid token whose address had sent too many."
    ),
    "ticket_activity_shared_count_failures": Metric(
        Kind.COUNTER, "Times that the Redis with the counts of rates did not answer."
    ),
    "ticket_activity_response_bytes": Metric(Kind.COUNTER, "Bytes of response bodies.", _REQUEST),
    "ticket_activity_write_batch_commands": Metric(
        Kind.HISTOGRAM, "Commands that shared one transaction.", (), SIZES
    ),
    "ticket_activity_commit_duration_seconds": Metric(
        Kind.HISTOGRAM, "Time of a COMMIT, with its sync to disk.", (), SECONDS
    ),
    "ticket_activity_changes": Metric(Kind.COUNTER, "Committed changes of entries.", ("change",)),
    "ticket_activity_writes_waiting": Metric(Kind.GAUGE, "Commands that wait for the writer."),
    "ticket_activity_read_batch_operations": Metric(
        Kind.HISTOGRAM, "Operations that shared one snapshot of the database.", (), SIZES
    ),
    "ticket_activity_reads_waiting": Metric(Kind.GAUGE, "Operations that wait for a snapshot."),
    "ticket_activity_long_reads": Metric(
        Kind.GAUGE, "Reads with a connection of their own, and those that wait for one.", ("state",)
    ),
    "ticket_activity_subscriptions": Metric(Kind.GAUGE, "Subscriptions that are open."),
    "ticket_activity_feed_lag_seconds": Metric(
        Kind.HISTOGRAM, "Time from the write of a change to when the feed has read it.", (), SECONDS
    ),
    "ticket_activity_cache_lookups": Metric(
        Kind.COUNTER, "Lookups of cached documents and timelines.", ("cache", "result")
    ),
    "ticket_activity_executions": Metric(
        Kind.COUNTER, "Executions of GraphQL operations.", ("executor",)
    ),
    "ticket_activity_log_lines_dropped": Metric(
        Kind.COUNTER, "Lines of the log that could not be written in time."
    ),
    "ticket_activity_processes": Metric(Kind.GAUGE, "Processes that serve.", ("version",)),
    "ticket_activity_worker_deaths": Metric(Kind.COUNTER, "Processes that died and were replaced."),
    "process_cpu_seconds": Metric(Kind.COUNTER, "Processor time of all processes that serve."),
    "process_resident_memory_bytes": Metric(Kind.GAUGE, "Memory of all processes that serve."),
    "process_open_fds": Metric(Kind.GAUGE, "File descriptors in use."),
    "process_max_fds": Metric(Kind.GAUGE, "File descriptors that may be in use."),
    "python_gc_collections": Metric(Kind.COUNTER, "Garbage collections.", ("generation",)),
}


_LASTING: Final = {name for name, metric in METRICS.items() if metric.kind is not Kind.GAUGE}


def measure_with(
    timeline: Timeline,
    executor: Executor,
    requests: Requests,
    admission: Admission | None,
    shared: SharedCounts | None,
) -> Measure:
    """Return a function that measures now. It may be called from another thread."""
    return partial(_measure, timeline, executor, requests, admission, shared)


def merge(snapshots: Iterable[Snapshot]) -> Snapshot:
    merged: Snapshot = {}
    for snapshot in snapshots:
        for key, values in snapshot.items():
            before = merged.get(key)
            if before and len(before) == len(values):  # not so across a reload with new bounds
                merged[key] = [a + b for a, b in zip(before, values, strict=True)]
            else:
                merged[key] = values
    return merged


def lasting(snapshot: Snapshot) -> Snapshot:
    """Return what stays true when the process has ended: what it counted."""
    return {key: values for key, values in snapshot.items() if key[0] in _LASTING}


def _measure(
    timeline: Timeline,
    executor: Executor,
    requests: Requests,
    admission: Admission | None,
    shared: SharedCounts | None,
) -> Snapshot:
    # `list` and `dict` copy at once, while another thread counts on.
    found = _of_process()
    for (door, operation, status), histogram in list(requests.durations.items()):
        labels = (door, operation, str(status))
        found["ticket_activity_request_duration_seconds", labels] = _values(histogram)
    for (door, operation, status), size in list(requests.sizes.items()):
        found["ticket_activity_response_bytes", (door, operation, str(status))] = [size]
    for door, count in dict(requests.limited).items():
        found["ticket_activity_rate_limited", (door,)] = [count]
    slowed, failures = admission.slowed if admission else 0, shared.failures if shared else 0
    found["ticket_activity_slowed_authentications", ()] = [slowed]
    found["ticket_activity_shared_count_failures", ()] = [failures]
    return found | _of_store(timeline) | _of_executor(executor)


def _of_store(timeline: Timeline) -> Snapshot:
    writer, reader, cache = timeline.writer, timeline.reader, timeline.cache
    running, waiting = reader.long_reads
    changes = {
        ("ticket_activity_changes", (change,)): [float(count)]
        for change, count in dict(writer.change_counts).items()
    }
    return changes | {
        ("ticket_activity_write_batch_commands", ()): _values(writer.batch_sizes),
        ("ticket_activity_commit_duration_seconds", ()): _values(writer.commit_seconds),
        ("ticket_activity_writes_waiting", ()): [writer.waiting],
        ("ticket_activity_read_batch_operations", ()): _values(reader.batch_sizes),
        ("ticket_activity_reads_waiting", ()): [reader.waiting],
        ("ticket_activity_long_reads", ("running",)): [running],
        ("ticket_activity_long_reads", ("waiting",)): [waiting],
        ("ticket_activity_subscriptions", ()): [timeline.stream_count],
        ("ticket_activity_feed_lag_seconds", ()): _values(timeline.feed.lag_seconds),
        ("ticket_activity_cache_lookups", ("timelines", "hit")): [cache.hits],
        ("ticket_activity_cache_lookups", ("timelines", "miss")): [cache.misses],
    }


def _of_executor(executor: Executor) -> Snapshot:
    compiler = executor.compiler
    return {
        ("ticket_activity_cache_lookups", ("documents", "hit")): [executor.parser.hits],
        ("ticket_activity_cache_lookups", ("documents", "miss")): [executor.parser.misses],
        ("ticket_activity_executions", ("compiled",)): [compiler.compiled_count],
        ("ticket_activity_executions", ("graphql-core",)): [compiler.interpreted_count],
    }


def _of_process() -> Snapshot:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    found: Snapshot = {
        ("ticket_activity_processes", (version("ticket-activity"),)): [1],
        ("ticket_activity_worker_deaths", ()): [0],  # the supervisor counts them
        ("ticket_activity_log_lines_dropped", ()): [events.output.dropped],
        ("process_cpu_seconds", ()): [usage.ru_utime + usage.ru_stime],
        ("process_max_fds", ()): [resource.getrlimit(resource.RLIMIT_NOFILE)[0]],
    }
    for generation, counted in enumerate(gc.get_stats()):
        found["python_gc_collections", (str(generation),)] = [counted["collections"]]
    if Path("/proc/self/statm").exists():  # Linux
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        found["process_resident_memory_bytes", ()] = [pages * _PAGE_BYTES]
        found["process_open_fds", ()] = [sum(1 for _ in Path("/proc/self/fd").iterdir())]
    return found


def _values(histogram: Histogram) -> list[float]:
    return [histogram.total, *histogram.counts]
