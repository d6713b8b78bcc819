"""Every setting of the service. `app/environment.py` reads them from the environment."""

from typing import Final, Self

from pydantic import model_validator

from app.settings.database import DatabaseSettings, IdempotencySettings
from app.settings.graphql import DocumentSettings, OperationSettings, SubscriptionSettings
from app.settings.requests import EntrySettings, HttpSettings, RateLimitSettings
from app.settings.service import IdentitySettings, LogSettings, ServiceSettings

ENV_PREFIX: Final = "TICKET_ACTIVITY_"
"""A setting is the environment variable of its name with this before it, in capital letters."""


class Settings(
    ServiceSettings,
    IdentitySettings,
    LogSettings,
    DatabaseSettings,
    IdempotencySettings,
    RateLimitSettings,
    HttpSettings,
    EntrySettings,
    OperationSettings,
    DocumentSettings,
    SubscriptionSettings,
):
    """The settings of one process. Its bases are the sections, in the order of README.md."""

    @model_validator(mode="after")
    def _require_cost_of_one_operation(self) -> Self:
        if 0 < self.rate_limit_cost < self.max_query_cost:
            raise ValueError(
                f"{ENV_PREFIX}RATE_LIMIT_COST is {self.rate_limit_cost}, and one operation may "
                f"cost {self.max_query_cost} ({ENV_PREFIX}MAX_QUERY_COST)"
            )
        return self

    def without_default_rate_limits(self) -> Self:
        """Return the settings without limits of rates that are not set, for a service to try."""
        limits = ("rate_limit_requests", "rate_limit_cost", "rate_limit_failures")
        unset = {name: 0 for name in limits if name not in self.model_fields_set}
        return self.model_copy(update=unset)
