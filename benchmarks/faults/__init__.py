"""What happens when ...: a row a fault, a column a pool; `python -m benchmarks.faults`."""

from benchmarks.faults.table import measure

__all__ = ["measure"]
