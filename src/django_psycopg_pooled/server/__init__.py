"""The server's own view of its sessions: who holds which lock, who waits, and ending them.

Knows no Django and no driver: whoever asks brings a function that runs one statement.
"""

from collections.abc import Callable, Sequence
from typing import Any

# Runs one statement with %s parameters, outside a transaction of anybody's, and returns all rows.
# Whatever the driver raises goes through.
Query = Callable[[str, Sequence[Any]], Sequence[Sequence[Any]]]
