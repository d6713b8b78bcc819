"""Says what a run found: ratios first, then figures; on the terminal and in README.md."""

from pathlib import Path
from typing import Any, Final

BEGIN: Final = "<!-- written by scripts/bench --readme -->"
END: Final = "<!-- end of what scripts/bench writes -->"
PICTURE: Final = ".github/bench.png"
README_CLIENTS: Final = 64

_HEAD: Final = (
    "| operation | clients | × textbook | p99 ÷ textbook | CPU ÷ textbook | of the ceiling "
    "| a second | p50 ms | p99 ms | CPU ms | textbook a second | p99 ms |\n"
    "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
)
_TITLES: Final = {
    "update": "`updateTicketActivity`",
    "put": "REST PUT",
    "create": "`createTicketActivity`",
    "read": "`ticketActivity` by id",
    "page": "page of 50 with total",
}

Row = dict[str, Any]


def rows(result: Row) -> list[Row]:
    """Return what each contender did, and the ratios, for each operation and number of clients."""
    found: dict[tuple[str, int], Row] = {}
    for one in result.get("measurements", []):
        row = found.setdefault((one["operation"], one["clients"]), {})
        row[one["contender"]] = one
    return [row | ratios(row) for row in found.values()]


def ratios(row: Row) -> Row:
    ours, textbook, ceiling = row["service"], row["textbook"], row["ceiling"]
    return {
        "times_textbook": divide(ours["per_second"], textbook["per_second"]),
        "p99_of_textbook": divide(ours["p99_ms"], textbook["p99_ms"]),
        "cpu_of_textbook": divide(ours["cpu_ms"], textbook["cpu_ms"]),
        "of_ceiling": divide(ours["per_second"], ceiling["per_second"]),
    }


def divide(value: float, unit: float) -> float | None:
    """Return a ratio, or None where the unit is nothing: no answer was right."""
    return value / unit if unit else None


def number(value: float | None, digits: int = 3) -> str:
    """Write a number with so many digits that count."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 10 ** (digits - 1) else f"{value:.{digits}g}"


def table(found: list[Row]) -> str:
    return "\n".join((_HEAD, *map(line, found))) if found else "No operation was measured."


def line(row: Row) -> str:
    ours, textbook = row["service"], row["textbook"]
    share = row["of_ceiling"]
    cells = (
        _TITLES[ours["operation"]],
        str(ours["clients"]),
        f"**{number(row['times_textbook'])}**",
        number(row["p99_of_textbook"], 2),
        number(row["cpu_of_textbook"], 2),
        "-" if share is None else f"{share:.0%}",
        *(number(ours[name]) for name in ("per_second", "p50_ms", "p99_ms", "cpu_ms")),
        *(number(textbook[name]) for name in ("per_second", "p99_ms")),
    )
    return f"| {' | '.join(cells)} |"


def notes(result: Row) -> list[str]:
    """Say what the table does not: the run, its checks, memory and delivery."""
    return [
        f"{result['at']}, {result['machine']}, Python {result['python']}, load before "
        f"{result['load_before']}, fsync {number(result['fsync_ms'])} ms; one server process each; "
        f"load by {result['generator']}, {result['seconds']:g} s each.",
        *looked_up(result),
        *delivered(result),
    ]


def looked_up(result: Row) -> list[str]:
    if not (found := result.get("acknowledged")):
        return []
    memory = max(one["memory_mib"] for one in of_service(result))
    return [
        f"{found['acknowledged']:,} acknowledged writes were looked up after `kill -9`, "
        f"{found['missing']:,} missing; the service took at most {memory:.0f} MiB."
    ]


def delivered(result: Row) -> list[str]:
    if not (found := result.get("delivery")):
        return []
    return [
        f"{found['subscribers']:,} subscribers on {found['tickets']:,} tickets, "
        f"{number(found['deliveries_per_second'])} deliveries a second: p50 "
        f"{number(found['p50_ms'])} ms, p99 {number(found['p99_ms'])} ms, CPU "
        f"{number(found['cpu_ms'])} ms each, {found['lost']:,} lost, {found['cut']:,} cut off; "
        f"{number(found['kib_per_subscriber'])} KiB a subscriber, {found['memory_mib']:.0f} MiB "
        "in all."
    ]


def of_service(result: Row) -> list[Row]:
    return [one for one in result.get("measurements", []) if one["contender"] == "service"]


def print_result(result: Row) -> None:
    shown = engine_tables(result) if "engines" in result else [table(rows(result))]
    print(*shown, *notes(result), *faults(result), sep="\n\n")


def engine_tables(result: Row) -> list[str]:
    """Write what the engines did, and what subscribers cost writes on each."""
    head = (
        "| operation | engine | × SQLite | a second | p50 ms | p99 ms | CPU ms |\n"
        "|---|---|--:|--:|--:|--:|--:|"
    )
    lines = [
        f"| {_TITLES[one['operation']]} | {one['engine']} | **{number(one['of_sqlite'])}** | "
        + " | ".join(number(one[name]) for name in ("per_second", "p50_ms", "p99_ms", "cpu_ms"))
        + " |"
        for one in result["engines"]
    ]
    listening = [
        f"| {one['engine']} | {one['tickets']:,} | **{one['ratio']:.2f}** | "
        f"{number(one['alone'])} | {number(one['with_subscribers'])} | "
        f"{number(one['client_cores'], 2)} |"
        for one in result["listening"]
    ]
    listening_head = (
        "| engine | tickets written to | with 100 followed ÷ with none | none, a second | 100 "
        "| cores that the 100 took |\n"
        "|---|--:|--:|--:|--:|--:|"
    )
    tables = ((head, lines), (listening_head, listening))
    return ["\n".join((heading, *found)) for heading, found in tables if found]


def faults(result: Row) -> list[str]:
    """Name the measurements with answers that were not right."""
    return [
        f"{one['contender']}, {one['operation']} by {one['clients']}: {one['bad']:,} answers were "
        f"not right, the first: {one['first_bad']}"
        for one in result.get("measurements", [])
        if one["bad"]
    ] + [
        f"{one['engine']}, {one.get('operation', 'with subscribers')}: {one['bad']:,} answers were "
        f"not right: {one.get('first_bad', '')}"
        for one in (*result.get("engines", []), *result.get("listening", []))
        if one["bad"]
    ]


def is_sound(result: Row) -> bool:
    """Return whether the service gave right answers only, lost no write and no delivery."""
    measured = (*of_service(result), *result.get("engines", []))
    all_right = all(one["good"] and not one["bad"] for one in measured)
    all_right &= not any(one["bad"] for one in result.get("listening", []))
    missing = result.get("acknowledged", {}).get("missing", 0)
    return all_right and not missing and not result.get("delivery", {}).get("lost", 0)


def readme_section(result: Row) -> str:
    shown = [row for row in rows(result) if row["service"]["clients"] in (1, README_CLIENTS)]
    picture = f"![How many times the textbook, and how near the ceiling]({PICTURE})"
    return "\n\n".join((table(shown), *notes(result), picture))


def write_readme(result: Row, readme: Path) -> None:
    """Put the table between the markers of README.md."""
    text = readme.read_text()
    before, _, rest = text.partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise ValueError(f"{readme} has no place between {BEGIN} and {END}")
    readme.write_text(f"{before}{BEGIN}\n\n{readme_section(result)}\n\n{END}{after}")
