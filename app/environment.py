"""Reads the settings from the environment, for the operator's commands."""

import os
import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from app.errors import OperatorError
from app.settings import ENV_PREFIX, Settings

_FILE_SUFFIX: Final = "_FILE"
_PASSWORD: Final = re.compile(r"//[^/@]*@")  # in an address


def read_settings() -> Settings:
    """Read the settings. Raise OperatorError for a wrong value or an unknown name.

    `…_FILE` after the name of a setting names a file with its value, for secrets.
    """
    given = {name.upper(): name for name in os.environ if name.upper().startswith(ENV_PREFIX)}
    files = _require_known(given)
    values: dict[str, Any] = {}
    for name, written in given.items():
        value = os.environ[written]
        if name in files:
            values[_field_of(name.removesuffix(_FILE_SUFFIX))] = _content(name, value)
        else:
            values[_field_of(name)] = value
    try:
        return Settings(**values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        message = first["msg"].removeprefix("Value error, ")
        if not first["loc"]:  # of several settings, which the message names
            raise OperatorError(f"{message}.") from None
        setting, *where = first["loc"]
        name = ".".join([f"{ENV_PREFIX}{setting}".upper(), *map(str, where)])
        shown = _PASSWORD.sub("//***@", repr(first["input"]))
        raise OperatorError(f"{name} is {shown}: {message}.") from None


def _require_known(given: Mapping[str, str]) -> set[str]:
    """Return the names that name files. Raise OperatorError for a name that is no setting."""
    names = {f"{ENV_PREFIX}{name}".upper() for name in Settings.model_fields}
    files = {f"{name}{_FILE_SUFFIX}" for name in names} & given.keys()
    if unknown := sorted(given[name] for name in given.keys() - names - files):
        near = get_close_matches(unknown[0].upper(), names, n=1)
        raise OperatorError(
            f"There is no setting {', '.join(unknown)}; "
            + (f"did you mean {near[0]}? " if near else "")
            + "README.md lists them all under Settings."
        )
    if twice := sorted(name for name in files if name.removesuffix(_FILE_SUFFIX) in given):
        raise OperatorError(f"{twice[0].removesuffix(_FILE_SUFFIX)} and {twice[0]} are both given.")
    return files


def _field_of(setting: str) -> str:
    return setting.removeprefix(ENV_PREFIX).lower()


def _content(name: str, path: str) -> str:
    """Return what a file holds that a `…_FILE` variable names, without line ends around it."""
    try:
        return Path(path).read_text().strip("\r\n")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
        raise OperatorError(f"{name} names {path}: {reason}.") from None
