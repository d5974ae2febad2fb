"""PooledWrapper.connect() follows Django's own: a change there must be looked at here."""

import ast
import hashlib
import inspect
import textwrap

import django
from django.db.backends.base.base import BaseDatabaseWrapper

# The steps of BaseDatabaseWrapper.connect() in Django 5.2, 6.0 and 6.1, which are the same.
FOLLOWED = "52071bdf22afe38d"


def test_djangos_connect_has_the_steps_that_ours_follows() -> None:
    tree = ast.parse(textwrap.dedent(inspect.getsource(BaseDatabaseWrapper.connect)))
    digest = hashlib.sha256(ast.unparse(tree).encode()).hexdigest()[:16]
    assert digest == FOLLOWED, (
        f"BaseDatabaseWrapper.connect() of Django {django.__version__} is new ({digest}): compare"
        " it with PooledWrapper.connect()"
    )
