-- The statements of queries.sql that PostgreSQL wants in other words, by the same names; postgres_connection.py rewrites what
-- differs in all of them alike: how names are bound, lists in JSON, LIKE, sums.

-- name: jobs
-- Read the jobs with their files (a JSON array), newest first; only one of them, unless that is null.
SELECT
  name, service, config,
  (
    SELECT CAST(COALESCE(
      JSON_AGG(
        JSON_BUILD_ARRAY(number, path, format, size, mtime_ns, base, inode, ctime_ns, sources.name, version, row_groups)
        ORDER BY number
      ),
      '[]'
    ) AS TEXT)
    FROM sources WHERE job = id
  ),
  output, state, read_complete, parent, attempt, until, strict, learnt, slowest_start, lost_stages, created_at,
  family, delta
FROM jobs
WHERE CAST(:job AS BIGINT) IS NULL OR id = :job
ORDER BY id DESC;

-- name: hold_jobs
-- Let nobody else make a job before this transaction ends: who looks which there are must see all.
SELECT pg_advisory_xact_lock(HASHTEXTEXTENDED(CURRENT_SCHEMA() || ' jobs', 0));

-- name: count_unproven
-- Count the created records of a job whose id may be that of another record of their batch.
SELECT COUNT(*)
FROM settlements CROSS JOIN LATERAL JSON_EACH(CAST(details AS JSON)) AS said
WHERE job = :job AND details LIKE '%"id_proven":false%' AND said.value ->> 'id_proven' = 'false';

-- name: count_later
-- Count the created records of a job by what became of their tasks afterwards. What was known of a task when its record
-- was settled stands with the settlement.
SELECT fate, COUNT(*) FROM later_fates WHERE job = :job GROUP BY fate
UNION ALL
SELECT said.value ->> 'later', COUNT(*)
FROM settlements CROSS JOIN LATERAL JSON_EACH(CAST(details AS JSON)) AS said
WHERE job = :job AND details LIKE '%"later":%' AND said.value ->> 'later' IS NOT NULL
GROUP BY 1;

-- name: badly_split
-- Name batches and parts that are split, and whose two halves do not begin and end where they do.
SELECT whole.sequence
FROM batches AS whole
LEFT JOIN batches AS first
  ON first.job = whole.job
  AND first.sequence = (2 * GREATEST(whole.sequence >> 32, 1) << 32) + (whole.sequence & 0xFFFFFFFF)
LEFT JOIN batches AS second
  ON second.job = whole.job
  AND second.sequence = (2 * GREATEST(whole.sequence >> 32, 1) + 1 << 32) + (whole.sequence & 0xFFFFFFFF)
WHERE
  whole.job = :job AND whole.state = 'split' AND (
    (whole.start_offset, whole.start_index, whole.start_line, whole.end_offset, whole.end_index, whole.end_line)
    IS DISTINCT FROM
    (first.start_offset, first.start_index, first.start_line, second.end_offset, second.end_index, second.end_line)
  )
LIMIT :limit;

-- name: inconsistent_rows
-- Name tables with rows that hang on a row that is not there: PostgreSQL keeps that from happening.
SELECT '', 0, '', 0 WHERE FALSE;

-- name: keys_like
-- Find the keys of records side by side of which one may be a key.
SELECT record_index, keys FROM keys WHERE job = :job AND POSITION(:key IN keys) > 0 ORDER BY record_index;

-- name: take_shards
-- Take the lease of shards that nobody has, or that others have lost; what is a worker's own it only renews. Those that
-- another worker takes just now are passed over. MATERIALIZED: what stands in an IN may be done once for each row, and
-- then passes over what it has taken itself, and takes all.
WITH free AS MATERIALIZED (
  SELECT first FROM shards
  WHERE job = :job AND state IN ('open', 'settling')
    AND (holder = '' OR :over <> 0 AND holder <> :worker AND expires_at <= :store_now)
  ORDER BY first
  LIMIT :limit
  FOR UPDATE SKIP LOCKED
)
UPDATE shards
SET
  token = token + 1, losses = losses + CASE WHEN holder = '' THEN 0 ELSE 1 END,
  lost = CASE WHEN holder = '' THEN lost ELSE lost || holder || ' ' END,
  holder = :worker, expires_at = :store_now + :seconds
FROM free
WHERE job = :job AND shards.first = free.first
RETURNING shards.first, last, state, token, holder, expires_at, losses, lost;

-- name: held_shards
-- Tell the tokens of those of some shards (a JSON array of their first sequences) that somebody has; nobody takes them before
-- this transaction ends.
SELECT first, token FROM shards
WHERE job = :job AND first IN (SELECT value FROM json_each(:sequences)) AND holder <> ''
FOR SHARE;

-- name: holder_of
-- Tell who has the lease of the shard of a batch, if anybody, and whether it holds; nobody takes it before this transaction
-- ends.
SELECT holder, expires_at > :store_now FROM shards
WHERE job = :job AND first <= :sequence AND last >= :sequence
FOR SHARE;

-- name: budget
-- Read a budget; nobody else changes it before this transaction ends.
SELECT state FROM budgets WHERE name = :name FOR UPDATE;

-- name: take_lock
-- Note who holds a lock from now on, and return the token of it.
INSERT INTO locks (name, token, holder) VALUES (:name, 1, :holder)
ON CONFLICT (name) DO UPDATE SET token = locks.token + 1, holder = excluded.holder
RETURNING token;

-- name: lock_tokens
-- Tell the tokens of some locks; nobody takes them before this transaction ends.
SELECT name, token FROM locks WHERE name = ANY(:names) FOR SHARE;

-- name: lock_holder
-- Tell who held a lock last.
SELECT holder FROM locks WHERE name = :name;

-- name: lacking_rights
-- Say which rights the user lacks on tables of the ledger or, if there are none, to make them.
SELECT needed.right_name || ' on ' || tables.table_name
FROM
  UNNEST(CAST(:tables AS TEXT[])) AS tables (table_name),
  (VALUES ('SELECT'), ('INSERT'), ('UPDATE'), ('DELETE')) AS needed (right_name)
WHERE
  CASE
    WHEN TO_REGCLASS(tables.table_name) IS NULL THEN FALSE  -- of a newer version
    ELSE NOT HAS_TABLE_PRIVILEGE(tables.table_name, needed.right_name)
  END
  AND (needed.right_name = 'SELECT' OR tables.table_name <> 'ledger_version')
UNION ALL
SELECT 'CREATE on schema ' || COALESCE(CURRENT_SCHEMA(), 'public')
WHERE CARDINALITY(CAST(:tables AS TEXT[])) = 0 AND NOT COALESCE(HAS_SCHEMA_PRIVILEGE(CURRENT_SCHEMA(), 'CREATE'), FALSE);

-- name: number_next_job
-- Have the next job get a number after all others, which were given with their rows.
SELECT SETVAL(PG_GET_SERIAL_SEQUENCE('jobs', 'id'), MAX(id)) FROM jobs HAVING MAX(id) IS NOT NULL;
