"""Making the tables and their rows, once for all peers."""

from django.db import connections

from benchmarks.tasks.prepared.models import MODELS

# Tables with their number of rows; a row belongs to one of the table before it.
COUNTRIES, CITIES, COMPANIES, DEPARTMENTS = 30, 300, 800, 2500
ROWS = (
    "INSERT INTO bench_country (name) SELECT 'country ' || n FROM generate_series(1, {0}) n",
    "INSERT INTO bench_city (name, country_id, population)"
    " SELECT 'city ' || n, n % {0} + 1, n * 1000 FROM generate_series(1, {1}) n",
    "INSERT INTO bench_company (name, city_id)"
    " SELECT 'company ' || n, n % {1} + 1 FROM generate_series(1, {2}) n",
    "INSERT INTO bench_department (name, company_id)"
    " SELECT 'department ' || n, n % {2} + 1 FROM generate_series(1, {3}) n",
)


def fill(people: int, orders: int, jobs: int, pending: int) -> None:
    """Make all tables; the *pending* of the *jobs* are the last ones, as in any queue."""
    connection = connections["plain"]
    with connection.schema_editor() as editor:
        for model in MODELS:
            editor.create_model(model)
    with connection.cursor() as cursor:
        for sql in ROWS:
            cursor.execute(sql.format(COUNTRIES, CITIES, COMPANIES, DEPARTMENTS))
        cursor.execute(
            "INSERT INTO bench_person (name, city_id, department_id, score)"
            f" SELECT 'person ' || n, n %% {CITIES} + 1, n %% {DEPARTMENTS} + 1, n"
            " FROM generate_series(1, %s) n",
            [people],
        )
        cursor.execute(
            "INSERT INTO bench_order (person_id, amount, placed)"
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
