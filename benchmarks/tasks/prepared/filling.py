"""Making the tables and their rows, once for all peers."""

from django.db import connections

from benchmarks.tasks.prepared.models import MODELS, Order, Person

# How many rows each table above Person has; the row n of a table belongs to n / 3 of the next.
DEPARTMENTS = 3**6
PARENTS = (
    ("bench_continent", None),
    ("bench_region", "continent_id"),
    ("bench_country", "region_id"),
    ("bench_city", "country_id"),
    ("bench_company", "city_id"),
    ("bench_department", "company_id"),
)


def fill(people: int, orders: int, jobs: int, pending: int) -> None:
    """Make all tables; the *pending* of the *jobs* are the last ones, as in any queue."""
    connection = connections["plain"]
    with connection.schema_editor() as editor:
        for model in MODELS:
            editor.create_model(model)
    with connection.cursor() as cursor:
        for depth, (table, parent) in enumerate(PARENTS):
            extra = "" if parent is None else f", {parent}"
            number = "" if parent is None else ", (n + 2) / 3"
            if table == "bench_city":
                extra, number = f"{extra}, population", f"{number}, n * 1000"
            cursor.execute(
                f"INSERT INTO {table} (name{extra}) SELECT 'row ' || n{number}"
                f" FROM generate_series(1, {3 ** (depth + 1)}) n"
            )
        cursor.execute(
            f"INSERT INTO {Person._meta.db_table} (name, department_id, score)"
            f" SELECT 'person ' || n, n %% {DEPARTMENTS} + 1, n FROM generate_series(1, %s) n",
            [people],
        )
        cursor.execute(
            f"INSERT INTO {Order._meta.db_table} (person_id, amount, placed)"
            " SELECT n %% %s + 1, n %% 1000 / 10.0, now() - n * interval '1 minute'"
            " FROM generate_series(1, %s) n",
            [people, orders],
        )
        cursor.execute(
            "INSERT INTO bench_job (status, note)"
            " SELECT CASE WHEN n > %s THEN 'pending' ELSE 'done' END, 'job ' || n"
            " FROM generate_series(1, %s) n",
            [jobs - pending, jobs],
        )
        cursor.execute("VACUUM ANALYZE")
    connection.close()
