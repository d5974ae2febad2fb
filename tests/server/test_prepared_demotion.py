"""A statement whose generic plan is bad for some values is not slower for being prepared."""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from django_psycopg_pooled.integration.wrapper import PooledWrapper
from tests.server.databases import Databases
from tests.server.support import value
from tests.server.things import facts

# A filter on a skewed column, ordered by another one, cut off: the generic plan walks the key.
FIRST = "SELECT id FROM skewed WHERE status = %s ORDER BY id LIMIT 10"
TABLE = """\
DROP TABLE IF EXISTS skewed;
CREATE TABLE skewed (id int, status text);
INSERT INTO skewed SELECT i, CASE WHEN i > 299700 THEN 'pending' ELSE 'done' END
FROM generate_series(1, 300000) i;
ALTER TABLE skewed ADD PRIMARY KEY (id);
CREATE INDEX ON skewed (status);
ANALYZE skewed"""


@pytest.fixture
def skewed(databases: Databases) -> Iterator[PooledWrapper]:
    connection = databases.add({"prepare": "auto", "max_size": 2})
    with connection.cursor() as cursor:
        cursor.execute(TABLE)
    yield connection
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE skewed")


def first(connection: PooledWrapper, status: str) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(FIRST, [status])
        return cursor.fetchone()


def test_the_rare_value_is_slow_prepared_and_is_not_prepared_for_long(
    skewed: PooledWrapper,
) -> None:
    for _ in range(100):
        assert first(skewed, "pending") == (299701,)
    demoted = facts(skewed, "SELECT id")
    assert demoted.state == "demoted", demoted
    assert demoted.hits < 40
    assert " ms prepared, " in demoted.reason
    began = time.monotonic()
    for _ in range(20):
        first(skewed, "pending")
    took = time.monotonic() - began
    assert demoted.prepared_mean_s is not None
    assert demoted.plain_mean_s is not None
    assert took / 20 < demoted.prepared_mean_s / 2
    assert demoted.prepared_mean_s > 2 * demoted.plain_mean_s


def test_a_rare_value_among_common_ones_is_found_out_too(skewed: PooledWrapper) -> None:
    # One slow execution could be chance: it takes some hundred without, none of them slow, to tell.
    for i in range(4000):
        first(skewed, "pending" if i % 10 == 9 else "done")
        if i % 100 == 99 and facts(skewed, "SELECT id").state == "demoted":
            break
    demoted = facts(skewed, "SELECT id")
    assert demoted.state == "demoted", demoted
    assert demoted.hits < 200


def test_a_statement_with_a_good_generic_plan_stays_prepared(skewed: PooledWrapper) -> None:
    for i in range(500):
        assert value(skewed, "SELECT status FROM skewed WHERE id = %s", i + 1) == "done"
    assert facts(skewed, "SELECT status").state == "prepared"
