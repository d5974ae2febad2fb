"""The driver that Django has chosen: psycopg 3 if it is installed, else psycopg2.

To import this raises ImproperlyConfigured if there is neither.
"""

from django.core.exceptions import ImproperlyConfigured

from django_psycopg_pooled.drivers.preparing import Binding
from django_psycopg_pooled.drivers.protocol import Driver
from django_psycopg_pooled.integration.no_driver import INSTALL, NO_DRIVER

try:
    from django.db.backends.postgresql.psycopg_any import is_psycopg3
except ImportError as error:
    raise ImproperlyConfigured(f"{NO_DRIVER} {INSTALL}") from error


def chosen_driver() -> Driver:
    """An adapter of the driver that django.db.backends.postgresql uses in this process."""
    if is_psycopg3:
        from django_psycopg_pooled.drivers.psycopg3 import PsycopgDriver

        return PsycopgDriver()
    from django_psycopg_pooled.drivers.psycopg2 import Psycopg2Driver

    return Psycopg2Driver()


def chosen_binding() -> Binding:
    """How that driver prepares statements."""
    if is_psycopg3:
        from django_psycopg_pooled.drivers.psycopg3_binding import PsycopgBinding

        return PsycopgBinding()
    from django_psycopg_pooled.drivers.psycopg2_binding import Psycopg2Binding

    return Psycopg2Binding()


DRIVER = chosen_driver()
BINDING = chosen_binding()
