"""Whether a shop's books add up after the load, by SQL alone: the site is not asked."""

from collections import Counter
from collections.abc import Iterable

from devtools.postgres import PostgresServer

# Each counts what must not be.
RULES = {
    "products whose stock and ordered units are not what was received": """
        SELECT count(*) FROM shop_product p LEFT JOIN (
            SELECT product_id, sum(quantity) AS sold FROM shop_orderline GROUP BY product_id
        ) s ON s.product_id = p.id
        WHERE p.stock + coalesce(s.sold, 0) <> p.received""",
    "orders whose total is not the sum of their lines": """
        SELECT count(*) FROM shop_order o LEFT JOIN (
            SELECT order_id, sum(quantity * unit_price) AS total
            FROM shop_orderline GROUP BY order_id
        ) l ON l.order_id = o.id
        WHERE o.total IS DISTINCT FROM l.total""",
    "server connections idle in a transaction": """
        SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND state LIKE 'idle in transaction%'""",
}


def audit(
    server: PostgresServer, database: str, orders_before: int, confirmed: Iterable[int]
) -> Counter[str]:
    """Problems found and their number. *confirmed*: ids of orders that visitors were told of."""
    problems = Counter({rule: int(server.psql(sql, database)[0]) for rule, sql in RULES.items()})
    rows = server.psql(f"SELECT id FROM shop_order WHERE id > {orders_before}", database)
    placed, told = Counter(map(int, rows)), Counter(confirmed)
    problems["orders confirmed and not there, or confirmed twice"] = (told - placed).total()
    problems["orders there that nobody was told of"] = (placed - told).total()
    return +problems
