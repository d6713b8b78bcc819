"""Requests with an idempotency key: the same request under the same key has one effect.

A request carries out commands, one in each of its steps. The outcome of a step is kept with its
effect, in one transaction, and so is the answer to the request, as soon as it is known.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Final
from uuid import UUID

from app.activity.outcomes import Outcome
from app.activity.values import canonical_json
from app.auth import Viewer
from app.errors import InvalidInput, UserError


@dataclass(frozen=True, slots=True)
class KeyedRequest:
    """`owner` is the token: keys of two tokens have nothing to do with each other.

    The fingerprint tells the request from another one under the same key. The scopes of the token
    are a part of it, so that no answer is given to a token that may see less.
    """

    owner: str
    actor_id: UUID
    key: str
    fingerprint: bytes

    @classmethod
    def of(cls, viewer: Viewer, key: str, *request: object) -> "KeyedRequest":
        """Return the request, given as JSON values. Raises InvalidInput where it is too deep."""
        try:
            text = canonical_json([sorted(viewer.scopes), *request])
        except RecursionError:
            raise InvalidInput("The request is nested too deeply.") from None
        fingerprint = sha256(text.encode()).digest()
        return cls(viewer.token_id, viewer.actor_id, key, fingerprint)


@dataclass(frozen=True, slots=True)
class Answer:
    """The response to a request, byte for byte."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(slots=True, eq=False)
class Step:
    """One command of a request, by its number among them.

    Where the outcome alone makes the answer to the request, `answer_of` does, and `answer` then
    holds what is kept as the answer.
    """

    request: KeyedRequest
    number: int
    answer_of: Callable[[Outcome | UserError], Answer] | None = None
    answer: Answer | None = None


REPEATABLE: Final = (Outcome, UserError)
"""What a step may come to that is kept. After any other error it may be tried again."""
