"""Settings for Django's tests: all that its own settings say, but the databases.

Alone in its folder: that folder is put on the path of Django's tests, which should see nothing else
of ours.
"""

import json
import os

from test_sqlite import *  # type: ignore[import-not-found] # noqa: F403  # in Django's tests/

DATABASES = json.loads(os.environ["DJANGO_SUITE_DATABASES"])
