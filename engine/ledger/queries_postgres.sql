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

-- name: note_slowest_start
-- Remember how long an answered release took to begin, if none took longer.
UPDATE jobs SET slowest_start = GREATEST(slowest_start, :seconds) WHERE id = :job;

-- name: keep_orphan
-- Keep the remote id that the coming step of a batch gives up, if it has one.
INSERT INTO orphans (job, sequence, remote_id)
SELECT job, sequence, remote_id FROM batches
WHERE
  job = :job AND sequence = :sequence AND remote_id IS NOT NULL
  AND remote_id IS DISTINCT FROM CAST(:remote_id AS TEXT)
ON CONFLICT DO NOTHING;

-- name: copy_known
-- Keep what is known by a hash beside what will be.
INSERT INTO copies (hash, job, record_index, rest)
SELECT hash, job, record_index, rest FROM known WHERE hash = :hash
ON CONFLICT DO NOTHING;

-- name: move
-- Take a batch one step on, if it stands where it is expected and, where its records are settled, has as many of them.
-- `unique`: and if no other batch of the job has its name.
UPDATE batches
SET
  state = :state, remote_id = :remote_id, changed_at = :changed_at, note = :note, sent_at = :sent_at, created = :created,
  failed = :failed, uncertain = :uncertain
WHERE
  job = :job AND sequence = :sequence AND state = :expected AND count = COALESCE(CAST(:records AS BIGINT), count)
  AND NOT (
    :unique <> 0
    AND EXISTS (
      SELECT 1 FROM batches AS other
      WHERE other.job = :job AND other.remote_id = :remote_id AND other.sequence <> :sequence
    )
  );

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

-- name: partly_created
-- Read the settled batches of which some record was not created, with the fate of each record; `failed_later`: also
-- those of which a task was known to have failed when they were settled.
SELECT
  sequence, start_offset, start_index, start_line, end_offset, end_index, end_line, count, size_bytes, sha256, spans,
  skipped, lines, task_ids, errors, details, settlements.uncertain
FROM batches JOIN spans USING (job, sequence) JOIN settlements USING (job, sequence)
WHERE
  job = :job AND sequence > :after
  AND (
    batches.failed > 0 OR batches.uncertain > 0
    OR :failed_later <> 0 AND (details LIKE '%"later":"failed"%' OR details LIKE '%"later":"rejected"%')
  )
ORDER BY sequence
LIMIT :limit;

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

-- name: add_later_fate
-- Keep what became of a created record's task afterwards, in the place of what was known before.
INSERT INTO later_fates (job, record_index, fate, reason, seen_at)
VALUES (:job, :record_index, :fate, :reason, :seen_at)
ON CONFLICT (job, record_index) DO UPDATE
SET fate = excluded.fate, reason = excluded.reason, seen_at = excluded.seen_at;

-- name: keys_like
-- Find the keys of records side by side of which one may be a key.
SELECT record_index, keys FROM keys WHERE job = :job AND POSITION(:key IN keys) > 0 ORDER BY record_index;

-- name: add_sample
-- Remember what a run did in the last seconds.
INSERT INTO samples (job, run, at, figures) VALUES (:job, :run, :at, :figures)
ON CONFLICT (job, run, at) DO UPDATE SET figures = excluded.figures;

-- name: thin_samples
-- Forget every second sample of a run, the newest one not among them.
DELETE FROM samples
WHERE job = :job AND run = :run AND at IN (
  SELECT at FROM (
    SELECT at, ROW_NUMBER() OVER (ORDER BY at DESC) AS place FROM samples WHERE job = :job AND run = :run
  ) AS numbered
  WHERE place % 2 = 0
);

-- name: keep_audit
-- Remember what the last audit of a job found.
INSERT INTO audits (job, verdict) VALUES (:job, :verdict)
ON CONFLICT (job) DO UPDATE SET verdict = excluded.verdict;

-- name: last_step_at
-- Read when a job was made, or a batch of it moved last.
SELECT GREATEST(created_at, COALESCE((SELECT MAX(changed_at) FROM batches WHERE job = :job), 0)) FROM jobs WHERE id = :job;

-- name: needed
-- Name the jobs by which others know what became of records, and why.
SELECT name, MIN(why) FROM jobs JOIN (
  SELECT DISTINCT job AS needed, 'its family knows records by it' AS why FROM known
  UNION ALL
  SELECT DISTINCT job, 'its family knows records by it' FROM copies
  UNION ALL
  SELECT DISTINCT other, 'records of other jobs were skipped for what it has' FROM skips
  UNION ALL
  SELECT taken_over, 'it has sent records of a canceled job' FROM jobs WHERE taken_over IS NOT NULL
) AS reasons ON id = needed
GROUP BY name;

-- name: take_shards
-- Take the lease of shards that nobody has, or that others have lost; what is a worker's own it only renews. Those that
-- another worker takes just now are passed over. MATERIALIZED: what stands in an IN may be done once for each row, and
-- then passes over what it has taken itself, and takes all.
WITH free AS MATERIALIZED (
  SELECT first FROM shards
  WHERE job = :job AND state IN ('open', 'settling')
    AND (holder = '' OR holder <> :worker AND expires_at <= :store_now)
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
-- Tell the tokens of some shards (a JSON array of their first sequences), and whether their leases hold; nobody takes them
-- before this transaction ends.
SELECT first, token, expires_at > :store_now FROM shards
WHERE job = :job AND first IN (SELECT value FROM json_each(:sequences))
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
