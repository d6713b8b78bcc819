"""The operator's command line. An error is printed as one line; the exit status is then 1.

A mistake in the command itself is printed with its usage, and the exit status 2.
"""

import argparse
import os
import re
import sys
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from pkgutil import resolve_name
from typing import Final, NoReturn, TypeAlias
from urllib.parse import urlsplit
from uuid import UUID

from app.activity.actors import mistake_in_url
from app.activity.state import ABSENT
from app.activity.values import parse_uuid
from app.auth import Scope
from app.errors import InvalidInput, OperatorError

_DURATION: Final = re.compile(r"([1-9][0-9]{0,4})([dhm])")
_FORMATS: Final = ("ticket-activity", "zendesk", "zammad")
_INTERRUPTED: Final = 128 + 2  # as shells say that SIGINT ended a command
_MAX_NAME_LENGTH: Final = 100
_MAX_WORKERS: Final = 64
_STANDARD_ERROR: Final = 2
_Commands: TypeAlias = "argparse._SubParsersAction[_Parser]"
_UNITS: Final = {"d": "days", "h": "hours", "m": "minutes"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    _require_standard_error()
    options = _parser().parse_args(arguments)
    try:
        # Only the module of this command is imported: `health` shall not load what `serve` needs.
        command: Callable[[argparse.Namespace], None] = resolve_name(
            f"app.commands.{options.command}"
        )
        command(options)
        print(end="", flush=True)
    except OperatorError as error:
        print(f"ticket-activity: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("ticket-activity: Interrupted.", file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:  # who read the output, such as `head`, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _require_standard_error() -> None:
    """Open it, to nobody, if it is closed: else a socket could take its place."""
    if sys.stderr is None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), _STANDARD_ERROR)
        sys.stderr = os.fdopen(_STANDARD_ERROR, "w")


class _Parser(argparse.ArgumentParser):
    """Ends the error of a wrong command with where to read on."""

    def error(self, message: str) -> NoReturn:
        super().error(f"{message}\n`{self.prog} --help` says more.")


class _Version(argparse.Action):
    """Looks the version up only when it is asked for, which takes a third of such a command."""

    def __call__(self, parser: argparse.ArgumentParser, *_rest: object) -> None:
        version = resolve_name("importlib.metadata:version")
        print(f"ticket-activity {version('ticket-activity')}")
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="ticket-activity",
        description="Serve the activity timelines of CRM tickets, and look after their database.",
        epilog="Settings are environment variables, such as TICKET_ACTIVITY_PORT and "
        "TICKET_ACTIVITY_DATABASE_URL; README.md lists them under Settings. "
        "`ticket-activity COMMAND --help` describes a command. Errors are one line, with exit "
        "status 1; a mistake in the command has the status 2.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    serving = _add(
        commands, "serve", "serve:serve", "migrate the database and serve GraphQL and REST"
    )
    serving.add_argument(
        "--demo",
        action="store_true",
        help="load a demo into an empty database, print how to use it",
    )
    serving.add_argument(
        "--workers",
        type=_workers,
        default=1,
        help=f"processes that serve, on one database, 1 to {_MAX_WORKERS} (default: 1)",
    )
    _add(commands, "health", "health:check_health", "ask the running service whether it is ready")
    _add(
        commands,
        "check-config",
        "serve:check_config",
        "say whether the settings are right; nothing is opened or written",
    )
    _add(
        commands,
        "migrate",
        "maintain:migrate_database",
        "create the database, or bring it to this release; the data stay",
    )
    _add(
        commands,
        "compact",
        "maintain:compact",
        "write the database file anew, without what was redacted or deleted",
    )
    _add_backup_commands(commands)
    _add_transfer_commands(commands)
    copying = _add(
        commands,
        "copy",
        "maintain:copy",
        "copy the database into another one: from SQLite to PostgreSQL, or back",
    )
    copying.add_argument("--to", required=True, metavar="URL", help="the address of the other one")
    _add(commands, "schema", "schema:print_sdl", "print the GraphQL schema")
    _add_removal_commands(commands)
    actors = commands.add_parser("actor", help="name the actors")
    _add_actor_commands(actors.add_subparsers(required=True, metavar="COMMAND"))
    tokens = commands.add_parser("token", help="issue, list and revoke tokens")
    _add_token_commands(tokens.add_subparsers(required=True, metavar="COMMAND"))
    return parser


def _add(commands: _Commands, name: str, command: str, text: str) -> argparse.ArgumentParser:
    """Add a command that is described by the same words in the list and in its own help.

    `command` names a function: `retain:remove` is `remove` of app/commands/retain.py.
    """
    parser = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    parser.set_defaults(command=command)
    return parser


def _add_backup_commands(commands: _Commands) -> None:
    saving = _add(
        commands,
        "backup",
        "backup:back_up",
        "write the SQLite database to a new file, also while it serves, and check that file",
    )
    saving.add_argument("file", type=Path, help="a file that does not exist yet")
    restoring = _add(
        commands,
        "restore",
        "backup:restore",
        "put a backup in the place of the database, while nothing serves it",
    )
    restoring.add_argument("file", type=Path, help="what `backup` wrote")
    restoring.add_argument(
        "--replace", action="store_true", help="keep the database that is there beside it"
    )


def _add_removal_commands(commands: _Commands) -> None:
    erasing = _add(
        commands,
        "erase-actor",
        "erase_actor:erase",
        "replace an actor's id by a random one everywhere, remove the name",
    )
    erasing.add_argument("id", type=_uuid, help="the UUID of the actor")
    erasing.add_argument(
        "--redact-messages", action="store_true", help="redact everything in their entries, too"
    )
    erasing.add_argument(
        "--apply", action="store_true", help="do it; otherwise it only says what it would change"
    )
    retaining = _add(
        commands, "retain", "retain:remove", "remove entries and history that are older than a time"
    )
    retaining.add_argument(
        "--older-than", type=_age, required=True, metavar="AGE", help="such as 730d, 12h or 30m"
    )
    retaining.add_argument(
        "--apply", action="store_true", help="do it; otherwise it only says what it would remove"
    )


def _add_actor_commands(commands: _Commands) -> None:
    setting = _add(commands, "set", "actors:set_actor", "give an actor a name or a picture")
    setting.add_argument("id", type=_uuid, help="the UUID of the actor")
    setting.add_argument("--name", default=ABSENT, help="what people call the actor")
    setting.add_argument("--avatar-url", default=ABSENT, help="the address of a picture")


def _add_transfer_commands(commands: _Commands) -> None:
    exporting = _add(
        commands, "export", "transfer:export", "write all data to a new file of JSON Lines"
    )
    exporting.add_argument("file", type=Path, help="a file that does not exist yet")
    exporting.add_argument(
        "--tokens", action="store_true", help="access tokens too, with the hashes of their secrets"
    )
    importing = _add(
        commands,
        "import",
        "transfer:import_",
        "read what `export` wrote, or records of another system, into the database",
    )
    importing.add_argument("file", type=Path, help="JSON Lines")
    importing.add_argument(
        "--on-error",
        choices=["stop", "continue"],
        default="stop",
        help="what to do at a line or record that is wrong (default: stop)",
    )
    importing.add_argument(
        "--format",
        choices=_FORMATS,
        default=_FORMATS[0],
        help="of which system the records are (default: what `export` wrote)",
    )
    importing.add_argument(
        "--namespace",
        metavar="URL",
        type=_address,
        help="the address of the other system: ids are made from it",
    )
    _add(
        commands,
        "export-schema",
        "transfer:print_line_schema",
        "print the JSON Schema of the lines of an export",
    )


def _add_token_commands(commands: _Commands) -> None:
    creating = _add(commands, "create", "tokens:create", "issue a token and print it, this once")
    creating.add_argument("--name", required=True, type=_name, help="what lists call it")
    creating.add_argument(
        "--actor",
        required=True,
        type=_uuid,
        metavar="UUID",
        help="the person or program it acts as: any UUID of your choice",
    )
    creating.add_argument(
        "--scope",
        action="append",
        type=_scope,
        metavar="SCOPE",
        help=f"may be repeated: {', '.join(Scope)} (default: the first two)",
    )
    creating.add_argument(
        "--expires-in",
        type=_duration,
        default=timedelta(days=90),
        metavar="TIME",
        help="such as 90d, 12h, 30m, or never (default: 90d)",
    )
    _add(commands, "list", "tokens:list_all", "list tokens, without their secrets")
    revoking = _add(commands, "revoke", "tokens:revoke", "revoke a token for good")
    revoking.add_argument("id", help="the id that `list` shows")


def _name(text: str) -> str:
    if not 0 < len(text) <= _MAX_NAME_LENGTH or not text.isprintable():
        raise argparse.ArgumentTypeError(f"give 1 to {_MAX_NAME_LENGTH} printable characters")
    return text


def _address(text: str) -> str:
    """Return the one form of an address: ids are made of it."""
    address = urlsplit(text)
    if mistake_in_url(text) or len(text) > _MAX_NAME_LENGTH or address.username or address.query:
        raise argparse.ArgumentTypeError(
            f"give an address of at most {_MAX_NAME_LENGTH} characters, such as "
            "https://example.zendesk.com"
        )
    return f"{address.scheme}://{address.netloc.lower()}{address.path.rstrip('/')}"


def _scope(text: str) -> Scope:
    if text not in list(Scope):
        raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(Scope)}")
    return Scope(text)


def _workers(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= _MAX_WORKERS:
        raise argparse.ArgumentTypeError(f"give a number from 1 to {_MAX_WORKERS}")
    return int(text)


def _uuid(text: str) -> UUID:
    try:
        return parse_uuid(text)
    except InvalidInput as error:
        raise argparse.ArgumentTypeError(error.message) from None


def _duration(text: str) -> timedelta | None:
    return None if text == "never" else _parse_duration(text, "such as 90d, or never")


def _age(text: str) -> timedelta:
    return _parse_duration(text, "such as 730d")


def _parse_duration(text: str, example: str) -> timedelta:
    match = _DURATION.fullmatch(text)
    if not match:
        raise argparse.ArgumentTypeError(f"give a number and d, h or m, {example}")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})
