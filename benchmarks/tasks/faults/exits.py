"""A program that ends with its pool open: one connection idle, one lent.

Run by itself, because its end is what is measured: settings come on stdin, and the moment at which
it has nothing more to do goes to stdout, on the clock that all processes share.
"""

import importlib
import json
import sys
import time


def main() -> None:
    """Use the pool and return."""
    setup = json.loads(sys.stdin.read())
    if setup["greenlets"]:
        importlib.import_module("gevent.monkey").patch_all()
    import django
    from django.conf import settings

    settings.configure(DATABASES=setup["databases"], USE_TZ=True)
    django.setup()
    from benchmarks.tasks.operation import query
    from benchmarks.tasks.spike import warm

    warm(2)
    query()
    print(time.monotonic(), flush=True)


if __name__ == "__main__":
    main()
