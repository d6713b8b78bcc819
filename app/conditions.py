"""`If-Match` and `If-None-Match` of a request (RFC 9110 section 13.1), as versions of an entry."""

import re
from collections.abc import Container, Iterable
from dataclasses import dataclass
from typing import Final

from app.errors import InvalidInput

# RFC 9110 section 8.8.3.
_TAG: Final = r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"'
# A list may have empty elements, which are ignored (section 5.6.1.2), and may be empty.
TAGS_PATTERN: Final = rf"^(?:\*|(?:{_TAG}[ \t]*)?(?:,[ \t]*(?:{_TAG}[ \t]*)?)*)$"
_TAGS: Final = re.compile(TAGS_PATTERN)
_VERSION_TAG: Final = re.compile(r'(W/)?"([1-9][0-9]{0,17})"')


class _Every:
    def __contains__(self, version: object) -> bool:
        return True


_EVERY: Final = _Every()
_NONE: Final[Container[int]] = frozenset()


@dataclass(frozen=True, slots=True)
class Preconditions:
    """The versions that a request accepts: `version in preconditions` says whether one does."""

    if_match: Container[int]
    if_none_match: Container[int]

    def __contains__(self, version: object) -> bool:
        return version in self.if_match and version not in self.if_none_match


def read_preconditions(if_match: list[str], if_none_match: list[str]) -> Preconditions:
    """Read all lines of both headers. `If-Match` compares strongly, `If-None-Match` weakly.

    Raises InvalidInput for what is not `*` or a list of entity tags.
    """
    wanted = _tags(if_match, "If-Match")
    unwanted = _tags(if_none_match, "If-None-Match")
    return Preconditions(
        _EVERY if wanted is None else _versions(wanted, is_weak=False),
        _NONE if unwanted is None else _versions(unwanted, is_weak=True),
    )


def _tags(lines: list[str], name: str) -> list[str] | None:
    if not lines:
        return None
    value = ", ".join(lines).strip()
    if not _TAGS.fullmatch(value):
        raise InvalidInput(f'The header {name} must be * or a list of entity tags such as "3".')
    return [value] if value == "*" else re.findall(_TAG, value)


def _versions(tags: Iterable[str], *, is_weak: bool) -> Container[int]:
    """Return the versions that the tags name. A tag that this service never sent names none."""
    if tags == ["*"]:
        return _EVERY
    found = (_VERSION_TAG.fullmatch(tag) for tag in tags)
    return frozenset(int(match[2]) for match in found if match and (is_weak or not match[1]))
