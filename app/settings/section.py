"""What the sections of settings have in common."""

from typing import ClassVar, Final

from pydantic import BaseModel, ConfigDict

KIB: Final = 1024


class Section(BaseModel):
    """Settings that README.md has under one `heading`."""

    heading: ClassVar[str]

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        validate_default=True,
        defer_build=True,  # sections are never made, and a command that needs none is quick
    )
