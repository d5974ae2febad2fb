"""The SQL that reads the server's own tables. No percent sign in it but of parameters.

Nothing here can wait for a user's lock: only views of shared memory and system catalogues are
read, and regclass opens no table. What holds a catalogue itself (VACUUM FULL pg_class) is left to
the time limits of SET_UP.
"""

QUERY_CUT = 200  # characters of a statement that leave the server
HOLDERS_CUT = 10  # of one waiter: a queue of n for one row has n * n / 2 pairs
STATEMENT_TIMEOUT_MS = 2_000
LOCK_TIMEOUT_MS = 500


def microseconds(column: str) -> str:
    """SQL for a time as an exact number that drivers and JSON leave alone."""
    return f"(extract(epoch FROM {column}) * 1000000)::bigint"


def age(column: str) -> str:
    """SQL for the seconds since a time; not now(), which stands still in a transaction."""
    return f"extract(epoch FROM clock_timestamp() - {column})::float8"


SET_UP = (
    f"SELECT set_config('statement_timeout', '{STATEMENT_TIMEOUT_MS}', false),"
    f" set_config('lock_timeout', '{LOCK_TIMEOUT_MS}', false)"
)

# pg_stat_clear_snapshot: within a transaction the server would answer with what it was first
# asked. The function below takes its argument from there, so that it is called afterwards.
# A statement of another database may be in another encoding, which ends in an error when it is
# sent as text; textsend and escape make ASCII of it. Escape also doubles backslashes, which has to
# be undone: in E'it\\'s' they would end the literal early, and what follows be taken for a name.
# A prepared transaction's locks have no pid, but the virtual transaction of the session that began
# it; among them is the one on its own transaction id, by which its name is found.
# Lists beside each other, put together by their reader: a subquery for each waiter would read all
# locks for each.
# Rows that the asking role may not look into have neither backend_type nor wait_event: that they
# wait is seen in pg_locks alone.
FACTS = f"""
WITH fresh AS MATERIALIZED (
  SELECT count(pg_stat_clear_snapshot()) AS one
), act AS MATERIALIZED (
  SELECT a.*, a.backend_start IS NULL AND a.query = '<insufficient privilege>' AS hidden,
         d.datname, d.datname = current_database() AS here
  FROM fresh CROSS JOIN LATERAL pg_stat_get_activity(NULLIF(fresh.one, 1)::int) a
  LEFT JOIN pg_database d ON d.oid = a.datid
  WHERE a.datid IS NOT NULL OR a.wait_event_type = 'Lock'
), lock AS MATERIALIZED (
  SELECT l.*, concat_ws('/', l.locktype, l.database, l.relation, l.page, l.tuple, l.virtualxid,
                        l.transactionid, l.classid, l.objid, l.objsubid) AS tag
  FROM pg_locks l
  WHERE (SELECT bool_or(a.wait_event_type = 'Lock' OR a.hidden) FROM act a)
), wait AS MATERIALIZED (
  SELECT l.*, pg_blocking_pids(l.pid) AS pids
  FROM act a JOIN lock l ON l.pid = a.pid AND NOT l.granted
  WHERE a.wait_event_type = 'Lock' OR a.hidden
), prepared AS MATERIALIZED (
  SELECT p.gid, l.virtualtransaction
  FROM lock l JOIN pg_prepared_xacts p ON p.transaction = l.transactionid
  WHERE l.locktype = 'transactionid' AND l.granted
), holder AS MATERIALIZED (
  SELECT w.pid AS waiter, coalesce(h.pid, 0) AS pid, p.gid,
         array_agg(DISTINCT h.mode) AS modes,
         row_number() OVER (PARTITION BY w.pid ORDER BY h.pid, p.gid) AS nth,
         count(*) OVER (PARTITION BY w.pid) AS total
  FROM wait w
  JOIN lock h ON h.tag = w.tag AND h.granted AND coalesce(h.pid, 0) = ANY (w.pids)
  LEFT JOIN prepared p ON h.pid IS NULL AND p.virtualtransaction = h.virtualtransaction
  GROUP BY w.pid, h.pid, p.gid
)
SELECT json_build_object(
  'pid', pg_backend_pid(),
  'database', current_database(),
  'version', current_setting('server_version'),
  'role', quote_ident(current_user),
  'read_at_us', {microseconds("clock_timestamp()")},
  'backends', (
    SELECT coalesce(json_agg(json_build_array(
      a.pid, {microseconds("a.backend_start")}, a.datname, pg_get_userbyid(NULLIF(a.usesysid, 0)),
      coalesce(a.application_name, ''),
      CASE WHEN a.client_port = -1 THEN 'local' ELSE host(a.client_addr) END,
      a.backend_type, a.state, {microseconds("a.state_change")},
      {age("a.state_change")}, {age("a.xact_start")}, a.wait_event_type, a.wait_event,
      CASE WHEN a.hidden THEN '' WHEN a.here THEN left(a.query, {QUERY_CUT})
           ELSE replace(encode(substring(textsend(a.query) FOR {QUERY_CUT}), 'escape'),
                        chr(92) || chr(92), chr(92)) END,
      a.pid = pg_backend_pid(), a.hidden
    ) ORDER BY a.backend_start, a.pid), '[]') FROM act a),
  'waits', (
    SELECT coalesce(json_agg(json_build_object(
      'pid', w.pid, 'locktype', w.locktype, 'mode', w.mode, 'wait_s', {age("w.waitstart")},
      'relation', w.relation::regclass::text,
      'relkind', (SELECT c.relkind FROM pg_class c WHERE c.oid = w.relation),
      'transaction', w.transactionid::text, 'virtual', w.virtualxid,
      'classid', w.classid::bigint, 'objid', w.objid::bigint, 'objsubid', w.objsubid,
      'queue', w.pids[:{HOLDERS_CUT}], 'queue_count', cardinality(w.pids)
    )), '[]') FROM wait w),
  'marked_rows', (
    SELECT coalesce(json_agg(json_build_array(w.pid, l.relation::regclass::text)), '[]')
    FROM wait w JOIN lock l ON l.pid = w.pid
    WHERE w.locktype = 'transactionid' AND l.locktype = 'tuple' AND l.granted),
  'holders', (
    SELECT coalesce(json_agg(json_build_array(h.waiter, h.pid, h.gid, h.modes, h.total)
                             ORDER BY h.waiter, h.nth), '[]')
    FROM holder h WHERE h.nth <= {HOLDERS_CUT}),
  'prepared', (
    SELECT coalesce(json_agg(json_build_array(
      p.gid, {age("p.prepared")}, p.owner, p.database) ORDER BY p.prepared), '[]')
    FROM pg_prepared_xacts p)
)::text
"""


def guarded(action: str) -> str:
    """SQL that does *action* to a session if it is the one that was seen, and says what it found.

    Its parameters: pid, backend_start in microseconds, state, state_change in microseconds.
    One row: a word, what *action* returned or NULL, who asks. The check and the signal are some
    microseconds apart; the server offers nothing closer.
    """
    return f"""
WITH asked AS MATERIALIZED (
  SELECT %s::int * count(pg_stat_clear_snapshot())::int AS pid,
         %s::bigint AS started, %s::text AS state, %s::bigint AS changed
), found AS MATERIALIZED (
  SELECT q.pid, CASE
    WHEN a.pid IS NULL THEN 'gone'
    WHEN a.pid = pg_backend_pid() THEN 'own'
    WHEN a.backend_start IS NULL THEN 'hidden'
    WHEN {microseconds("a.backend_start")} IS DISTINCT FROM q.started THEN 'reused'
    WHEN a.backend_type IS DISTINCT FROM 'client backend' THEN 'no client'
    WHEN a.state IS DISTINCT FROM q.state
      OR {microseconds("a.state_change")} IS DISTINCT FROM q.changed THEN 'moved on'
    WHEN r.rolsuper AND current_setting('is_superuser') <> 'on' THEN 'superuser'
    WHEN NOT (pg_has_role(a.usesysid, 'USAGE') OR pg_has_role('pg_signal_backend', 'USAGE'))
      THEN 'not allowed'
    ELSE 'found' END AS word
  FROM asked q
  LEFT JOIN LATERAL pg_stat_get_activity(q.pid) a ON true
  LEFT JOIN pg_roles r ON r.oid = a.usesysid
)
SELECT f.word, CASE WHEN f.word = 'found' THEN {action} END, quote_ident(current_user)
FROM found f
"""
