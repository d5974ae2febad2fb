"""Fakes for tests of the pool without a server, and of code that builds on it.

A ManualClock moves time only when told, or when somebody waits; a ManualRuntime runs background
work just then; a ScriptedDriver answers as its script says. With them a test of an hour's idling
takes a millisecond, and always ends the same.

For tests against a server there are `assertions` and `faults`, which need Django and so are modules
of their own.
"""

from django_psycopg_pooled.testing.manual import ManualClock, ManualRuntime
from django_psycopg_pooled.testing.scripted import ScriptedConnection, ScriptedDriver

__all__ = ["ManualClock", "ManualRuntime", "ScriptedConnection", "ScriptedDriver"]
