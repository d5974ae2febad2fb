"""Tells Django of the checks; add "django_psycopg_pooled" to INSTALLED_APPS for it."""

from django.apps import AppConfig
from django.core import checks

from django_psycopg_pooled.checks import check_databases


class PooledConfig(AppConfig):
    """The app. Its backends work without it; the system checks do not."""

    name = "django_psycopg_pooled"
    verbose_name = "django-psycopg-pooled"

    def ready(self) -> None:
        checks.register(check_databases, "django_psycopg_pooled")
