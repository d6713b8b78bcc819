"""The names of actors, for people to read. What an actor may do has nothing to do with them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit
from uuid import UUID

from app.activity.state import ABSENT, AbsentType
from app.errors import InvalidInput

MAX_ACTORS: Final = 100
MAX_NAME_LENGTH: Final = 200
MAX_URL_LENGTH: Final = 2048


@dataclass(frozen=True, slots=True)
class Actor:
    """`name` and `avatar_url` are None where they are not known."""

    id: UUID
    name: str | None
    avatar_url: str | None


@dataclass(frozen=True, slots=True)
class ActorUpdate:
    """What to set of an actor; ABSENT keeps what is there, None clears it."""

    id: UUID
    name: str | AbsentType | None = ABSENT
    avatar_url: str | AbsentType | None = ABSENT

    @property
    def is_empty(self) -> bool:
        return self.name is self.avatar_url is ABSENT

    def check(self) -> None:
        """Raise InvalidInput."""
        if isinstance(self.name, str) and (mistake := mistake_in_name(self.name)):
            raise InvalidInput(f"name {mistake}.", path=("name",))
        if isinstance(self.avatar_url, str) and (mistake := mistake_in_url(self.avatar_url)):
            raise InvalidInput(f"avatarUrl {mistake}.", path=("avatarUrl",))

    def applied_to(self, actor: Actor | None) -> Actor:
        before = actor or Actor(self.id, None, None)
        return Actor(
            self.id,
            before.name if self.name is ABSENT else self.name,
            before.avatar_url if self.avatar_url is ABSENT else self.avatar_url,
        )


def check_actors(updates: Sequence[ActorUpdate]) -> None:
    """Raise InvalidInput for the first update that breaks a rule, or names an actor again."""
    seen: set[UUID] = set()
    for number, update in enumerate(updates):
        try:
            update.check()
        except InvalidInput as error:
            raise InvalidInput(error.message, path=("actors", number, *error.path)) from None
        if update.id in seen:
            raise InvalidInput(f"The actor {update.id} comes twice.", path=("actors", number, "id"))
        seen.add(update.id)


def mistake_in_name(name: str) -> str | None:
    """Return what is wrong with a name, if anything is."""
    if not name.strip() or len(name) > MAX_NAME_LENGTH or not name.isprintable():
        return f"must be 1 to {MAX_NAME_LENGTH} printable characters that are not all spaces"
    return None


def mistake_in_url(url: str) -> str | None:
    """Return why a page should not show the picture at an address, if it should not."""
    try:
        parts = urlsplit(url)
        is_web = parts.scheme in ("https", "http") and bool(parts.hostname)
    except ValueError:
        is_web = False
    if not is_web or len(url) > MAX_URL_LENGTH or not url.isprintable() or " " in url:
        return (
            f"must be an address of at most {MAX_URL_LENGTH} characters that begins with https://"
        )
    return None
