"""The SQL that takes the traces of a borrower out of a session."""

from functools import cache

from django_psycopg_pooled.drivers.preparing import NAME_PREFIX
from django_psycopg_pooled.session import ANYTHING, Effect

# What PREPARE has left. What was prepared by the protocol, or by the pool with psycopg2, stays.
_DEALLOCATE = f"""\
DO $$DECLARE name text; BEGIN
FOR name IN SELECT p.name FROM pg_catalog.pg_prepared_statements p
WHERE p.from_sql AND NOT pg_catalog.starts_with(p.name, '{NAME_PREFIX}') LOOP
EXECUTE pg_catalog.format('DEALLOCATE %I', name); END LOOP; END$$"""

# A number from -1 to 1 that does not come from what the borrower knows.
_RESEED = """\
SELECT pg_catalog.setseed(pg_catalog.hashtext(pg_catalog.gen_random_uuid()::text) / 2147483648.0)"""

# In the order in which they are sent: cursors before the temporary tables that they read.
_UNDO = {
    Effect.CURSORS: "CLOSE ALL",
    Effect.ROLE: "RESET SESSION AUTHORIZATION; RESET ROLE",
    Effect.SETTINGS: "RESET ALL",
    Effect.CHANNELS: "UNLISTEN *",
    Effect.LOCKS: "SELECT pg_catalog.pg_advisory_unlock_all()",
    Effect.PREPARED: _DEALLOCATE,
    Effect.TEMPORARY: "DISCARD TEMP",
    Effect.SEED: _RESEED,
}
EVERYTHING = int(ANYTHING)
UNDOABLE = sum(_UNDO)


@cache  # at most 256 combinations
def reset_sql(effects: int) -> str:
    """Statements for one round trip that undo the undoable ones of *effects* (bits of Effect)."""
    return "; ".join(sql for effect, sql in _UNDO.items() if effects & effect)
