"""python -m benchmarks.faults"""

from benchmarks.command import main
from benchmarks.faults.table import measure

if __name__ == "__main__":
    main(measure, "What happens when ..., side by side.", ("psycopg", "psycopg2"))
