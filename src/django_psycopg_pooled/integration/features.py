"""What Django's own tests must know of a pooled backend."""

from typing import Any

from django.db.backends.base.features import BaseDatabaseFeatures
from django.utils.functional import cached_property

from django_psycopg_pooled.integration.identity import is_pooled

# Stock skips these two as well where OPTIONS["pool"] is set: a pooled connection needs no health
# check of its own at a request's first query.
HEALTH_CHECKS = "backends.base.test_base.ConnectionHealthChecksTests"
SKIPS = {
    "The pool checks its connections": {
        f"{HEALTH_CHECKS}.test_health_checks_enabled",
        f"{HEALTH_CHECKS}.test_set_autocommit_health_checks_enabled",
    }
}


class PooledFeatures(BaseDatabaseFeatures):
    """Mixed in before a PostgreSQL DatabaseFeatures."""

    @cached_property
    def django_test_skips(self) -> dict[str, Any]:  # type: ignore[override]
        skips: dict[str, Any] = super().django_test_skips
        if is_pooled(self.connection.alias, self.connection.settings_dict):
            return {**skips, **SKIPS}
        return skips
