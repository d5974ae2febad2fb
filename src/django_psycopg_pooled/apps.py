"""Tells Django of the checks; add "django_psycopg_pooled" to INSTALLED_APPS for it."""

from django.apps import AppConfig
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.db.models.signals import post_migrate

from django_psycopg_pooled.checks import check_databases, check_driver, check_setting


class PooledConfig(AppConfig):
    """The app. The backends work without it; the checks and the labels of threads do not."""

    name = "django_psycopg_pooled"
    verbose_name = "django-psycopg-pooled"

    def ready(self) -> None:
        """Without a driver, as where development is done on SQLite, only say so if one is needed.

        What needs one is imported here, so that Django starts without.
        """
        try:
            from django_psycopg_pooled.integration import driver as driver
        except ImproperlyConfigured:
            checks.register(check_driver, "django_psycopg_pooled")
            return
        from django_psycopg_pooled.integration.schema import forget_plans_after_migrations
        from django_psycopg_pooled.integration.work import label_work
        from django_psycopg_pooled.management.migrated import OTHER_PROCESSES
        from django_psycopg_pooled.management.process import answer_questions

        checks.register(check_databases, "django_psycopg_pooled")
        checks.register(check_setting, "django_psycopg_pooled")
        label_work()
        answer_questions()
        post_migrate.connect(forget_plans_after_migrations, dispatch_uid="django_psycopg_pooled")
        post_migrate.connect(OTHER_PROCESSES.forget_plans, dispatch_uid=OTHER_PROCESSES.__module__)
