"""More than 500 statements, plain and prepared: nothing that a program can see may differ."""

import contextlib
from collections.abc import Callable, Iterator

import pytest
from django.test.utils import override_settings

from devtools.postgres import PostgresServer
from django_psycopg_pooled import pools
from tests.server.databases import Databases, looked_after
from tests.server.differential import expressions, failures, fields, models, raw, reads, writes
from tests.server.differential.comparison import (
    Seen,
    Statement,
    differences,
    run,
    run_in_atomic,
    run_in_autocommit,
)

PREPARED = {"prepare": "auto", "prepare_threshold": 0, "max_size": 1}
POOLS = {
    ("autocommit", "plain"): {"max_size": 1},
    ("autocommit", "prepared"): PREPARED,  # where most make room for others soon
    ("atomic", "plain"): {"max_size": 1},
    ("atomic", "prepared"): PREPARED,
    ("autocommit", "counted"): {**PREPARED, "prepared_max": 1000},
}
MODES: dict[str, Callable[[Statement, str], list[Seen]]] = {
    "autocommit": run_in_autocommit,
    "atomic": run_in_atomic,
}
SEED = "differential_seed"
CORPUS: dict[str, Statement] = {
    f"{module.__name__.rpartition('.')[2]}: {name}": statement
    for module in (fields, reads, expressions, writes, raw, failures)
    for name, statement in module.STATEMENTS.items()
}
# The server names a column for the cast of the literal in it, which a parameter does not have.
UNNAMED = {
    f"raw: {name}"
    for name in (
        "a null alone", "float specials", "a date, a time, a moment, a duration", "a uuid",
        "bytes", "lists", "a list of dates", "a list of lists", "a list with null",
    )
}  # fmt: skip
FAILING = {f"failures: {name}" for name in failures.STATEMENTS}


def seed(databases: Databases) -> None:
    """The database of which each alias gets a copy, in which all rows and numbers are the same."""
    databases.server.create_database(SEED)
    for extension in models.EXTENSIONS:
        databases.server.psql(f"CREATE EXTENSION {extension}", SEED)
    connection = databases.add(False, NAME=SEED)
    with connection.schema_editor() as editor:
        for model in models.MODELS:
            editor.create_model(model)
    models.fill(connection.alias)
    connection.close()


@pytest.fixture(scope="module")
def aliases(server: PostgresServer) -> Iterator[dict[tuple[str, str], str]]:
    """For each mode and way an alias of a database of its own, all alike."""
    apps = ["django.contrib.postgres", "tests.server.differential"]
    result = {each: f"differential_{'_'.join(each)}" for each in POOLS}
    with (
        override_settings(INSTALLED_APPS=apps),
        contextlib.contextmanager(looked_after)(Databases(server)) as databases,
    ):
        seed(databases)
        for each, name in result.items():
            server.psql(f"CREATE DATABASE {name} TEMPLATE {SEED}")
            databases.add(POOLS[each], alias=name, NAME=name)
        yield result
    for name in (SEED, *result.values()):
        server.psql(f"DROP DATABASE {name}")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", CORPUS)
def test_a_prepared_statement_shows_what_the_plain_one_shows(
    aliases: dict[tuple[str, str], str], name: str, mode: str
) -> None:
    plain = MODES[mode](CORPUS[name], aliases[mode, "plain"])
    prepared = MODES[mode](CORPUS[name], aliases[mode, "prepared"])
    assert any(seen.failed for seen in plain) == (name in FAILING), plain
    columns = name not in UNNAMED
    found = [
        each
        for before, after in zip(plain, prepared, strict=True)
        for each in differences(before, after, columns=columns)
    ]
    assert found == []


# What PostgreSQL says of texts that can be executed, but not prepared: a parameter's type cannot be
# told, a cast of a literal; DISTINCT or GROUP BY of two equal parameters that might differ.
UNFIT = {"42P18", "42601", "42P10", "42803"}


def test_nearly_all_of_them_do_run_prepared_and_the_others_say_why_not(
    aliases: dict[tuple[str, str], str],
) -> None:
    alias = aliases["autocommit", "counted"]
    for name, statement in CORPUS.items():
        for _ in range(2 if name not in FAILING else 0):
            run(statement, alias)
    facts = [each for each in pools[alias].prepared() if each.state != "hot"]
    others = [each for each in facts if each.state != "prepared" or not each.hits]
    said = "\n".join(f"{each.reason} {each.sqlstate}: {each.text}" for each in others)
    assert len(facts) > 500
    assert len(others) < 0.06 * len(facts), said
    assert {each.sqlstate for each in others if each.sqlstate} <= UNFIT, said
    assert all(each.state == "denied" and each.reason for each in others), said
