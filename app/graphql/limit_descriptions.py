"""Texts for the schema's descriptions, on limits that are settings of the service."""

from typing import Any, Final

from app.settings import Settings


def _default(name: str) -> Any:
    return Settings.model_fields[name].default


MESSAGE_LIMIT: Final = (
    f"at most {_default('max_message_length'):,} characters, unless the service is set to another "
    "limit"
)
METADATA_LIMIT: Final = (
    f"at most {_default('max_metadata_bytes') // 1024} KiB as JSON and "
    f"{_default('max_metadata_depth')} levels deep, unless the service is set to other limits"
)
