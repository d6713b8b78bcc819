"""Documents that a request names instead of sending: automatic persisted queries (as Apollo and
urql send them) and trusted documents (a manifest of `id or hash -> document`).
"""

import json
from collections import OrderedDict
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from app.errors import (
    DocumentNotTrusted,
    InvalidInput,
    OperatorError,
    PersistedQueryNotFound,
    PersistedQueryNotSupported,
)

_MAX_CHARACTERS = 16 * 1024
_HASH_PREFIX = "sha256:"


class ManifestUnusable(OperatorError):
    """The manifest of trusted documents cannot be read."""


def read_manifest(path: Path) -> dict[str, str]:
    """Read a manifest as Relay's compiler and graphql-codegen write it, or as Apollo's does.

    Raises ManifestUnusable.
    """
    try:
        manifest = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ManifestUnusable(f"Cannot read the trusted documents in {path}: {error}.") from None
    try:
        operations = manifest.get("operations")
        if isinstance(operations, list):
            manifest = {operation["id"]: operation["body"] for operation in operations}
    except (AttributeError, KeyError, TypeError):
        manifest = None
    if not isinstance(manifest, dict) or not all(isinstance(t, str) for t in manifest.values()):
        raise ManifestUnusable(f"{path} is not a JSON object of ids and documents.")
    return manifest


class Documents:
    """Finds the text of the document of a request."""

    def __init__(
        self, *, cache_size: int, trusted: Mapping[str, str], is_trusted_only: bool
    ) -> None:
        self._cache_size = cache_size
        self._trusted = _by_every_name(trusted)
        self._trusted_texts = frozenset(trusted.values())
        self._is_trusted_only = is_trusted_only
        self._persisted: OrderedDict[str, str] = OrderedDict()

    def find(
        self, query: str | None, document_id: str | None, extensions: Mapping[str, Any] | None
    ) -> str:
        """Return the text. Raises InvalidInput or the error that the protocols expect."""
        persisted_id = _persisted_id(extensions)
        if query is not None:
            return self._sent(query, persisted_id)
        key = document_id or persisted_id
        if key is None:
            raise InvalidInput("query must be a non-empty string.", path=("query",))
        text = self._trusted.get(key) or self._trusted.get(key.removeprefix(_HASH_PREFIX))
        return text or self._named(key, persisted_id)

    def _sent(self, query: str, persisted_id: str | None) -> str:
        if self._is_trusted_only and query not in self._trusted_texts:
            raise DocumentNotTrusted("This service executes trusted documents only.")
        if persisted_id is not None:
            if sha256(query.encode(errors="surrogatepass")).hexdigest() != persisted_id:
                raise InvalidInput(
                    "extensions.persistedQuery.sha256Hash is not the hash of the query.",
                    path=("extensions", "persistedQuery", "sha256Hash"),
                )
            self._keep(persisted_id, query)
        return query

    def _named(self, key: str, persisted_id: str | None) -> str:
        if self._is_trusted_only or persisted_id is None:
            raise DocumentNotTrusted("There is no trusted document of that id.")
        if not self._cache_size:
            raise PersistedQueryNotSupported("PersistedQueryNotSupported")
        text = self._persisted.get(key)
        if text is None:
            raise PersistedQueryNotFound("PersistedQueryNotFound")
        self._persisted.move_to_end(key)
        return text

    def _keep(self, key: str, text: str) -> None:
        if not self._cache_size or len(text) > _MAX_CHARACTERS:
            return
        self._persisted[key] = text
        self._persisted.move_to_end(key)
        if len(self._persisted) > self._cache_size:
            self._persisted.popitem(last=False)


def _by_every_name(trusted: Mapping[str, str]) -> dict[str, str]:
    """Return the texts by their ids in the manifest and by their SHA-256 hashes."""
    by_hash = {sha256(text.encode()).hexdigest(): text for text in trusted.values()}
    by_id = {key.removeprefix(_HASH_PREFIX): text for key, text in trusted.items()}
    return by_hash | by_id | dict(trusted)


def _persisted_id(extensions: Mapping[str, Any] | None) -> str | None:
    """Read `extensions.persistedQuery`; null stands for absent. Raises InvalidInput."""
    persisted = (extensions or {}).get("persistedQuery")
    if persisted is None:
        return None
    match persisted:
        case {"version": 1, "sha256Hash": str(key)}:
            return key
    raise InvalidInput(
        "extensions.persistedQuery must hold version 1 and a sha256Hash.",
        path=("extensions", "persistedQuery"),
    )
