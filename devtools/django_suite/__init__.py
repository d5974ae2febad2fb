"""Django's own test suite with our backend: what passes with stock Django has to pass with us.

    python -m devtools.django_suite --labels ci
    make django-tests LABELS='backends transactions' DRIVER=psycopg2

Each file is one step: choices (what was asked), labels, sdist and environment (what is installed),
server, suite (one run of runtests.py), log (what it said), verdict (ours against stock, with the
table in expected) and report.
"""
