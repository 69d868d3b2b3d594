-- Every statement on a ledger: `-- name:`, a sentence, the statement. schema.sql explains tables and columns.

-- name: settings
-- Prepare a connection that writes; database.py says why.
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
PRAGMA foreign_keys = ON;

-- name: count_tables
-- Tell an empty file from one that belongs to somebody.
SELECT COUNT(*) FROM sqlite_schema;

-- name: begin
-- Start a group; IMMEDIATE waits here for another process that writes, instead of failing in the midst.
BEGIN IMMEDIATE;

-- name: commit
-- Make a group durable.
COMMIT;

-- name: roll_back
-- Take back a whole group.
ROLLBACK;

-- name: set_mark
-- Start one operation of a group.
SAVEPOINT operation;

-- name: return_to_mark
-- Take back one operation.
ROLLBACK TO operation;

-- name: remove_mark
-- End one operation, whether taken back or not.
RELEASE operation;

-- name: add_job
-- Remember a new job, and return its short name; the name must be free.
INSERT INTO jobs (
  name, service, config, output, state, read_complete, parent, attempt, until, strict, learnt, slowest_start,
  lost_stages, created_at, family, delta
)
VALUES (
  :name, :service, :config, :output, :state, :read_complete, :parent, :attempt, :until, :strict, :learnt, :slowest_start,
  :lost_stages, :created_at, :family, :delta
)
RETURNING id;

-- name: add_source
-- Remember one file of a job.
INSERT INTO sources (job, number, path, format, size, mtime_ns, base, inode, ctime_ns, name, version, row_groups)
VALUES (:job, :number, :path, :format, :size, :mtime_ns, :base, :inode, :ctime_ns, :name, :version, :row_groups);

-- name: hold_jobs
-- Let nobody else make a job before this transaction ends; in SQLite, one that writes is alone anyway.
SELECT 1;

-- name: unseen
-- Name a job that is not among some: one that was made after somebody has looked.
SELECT name FROM jobs WHERE name NOT IN (SELECT value FROM json_each(:seen)) LIMIT 1;

-- name: add_origin
-- Remember which record of the parent a record of a new job is.
INSERT INTO origins (job, record_index, parent_index) VALUES (:job, :record_index, :parent_index);

-- name: origins
-- Read which records of its parent some records of a job are, in the order of the job.
SELECT record_index, parent_index FROM origins
WHERE job = :job AND record_index >= :start AND record_index < :stop
ORDER BY record_index;

-- name: parents
-- Read which records of its parent some records of a job (a JSON array) are.
SELECT record_index, parent_index FROM origins
WHERE job = :job AND record_index IN (SELECT value FROM json_each(:indexes));

-- name: retried_as
-- Find the record of a job that is this one of its parent.
SELECT record_index FROM origins WHERE job = :job AND parent_index = :parent_index;

-- name: job_id
-- Find a job by its name.
SELECT id FROM jobs WHERE name = :name;

-- name: recent_names
-- Name the newest jobs, for the message that there is none of some name.
SELECT name FROM jobs ORDER BY id DESC LIMIT :limit;

-- name: jobs
-- Read the jobs with their files (a JSON array), newest first; only one of them, unless that is null.
SELECT
  name, service, config,
  (
    SELECT JSON_GROUP_ARRAY(
      JSON_ARRAY(number, path, format, size, mtime_ns, base, inode, ctime_ns, name, version, row_groups) ORDER BY number
    )
    FROM sources WHERE job = id
  ),
  output, state, read_complete, parent, attempt, until, strict, learnt, slowest_start, lost_stages, created_at,
  family, delta
FROM jobs
WHERE :job IS NULL OR id = :job
ORDER BY id DESC;

-- name: set_config
-- Replace the configuration of a job.
UPDATE jobs SET config = :config WHERE id = :job;

-- name: set_learnt
-- Remember what the service told of itself.
UPDATE jobs SET learnt = :learnt WHERE id = :job;

-- name: note_slowest_start
-- Remember how long an answered release took to begin, if none took longer.
UPDATE jobs SET slowest_start = :seconds WHERE id = :job AND slowest_start < :seconds;

-- name: note_lost_stage
-- Count a call that made something at the service, perhaps, and whose answer was lost.
UPDATE jobs SET lost_stages = lost_stages + 1 WHERE id = :job;

-- name: set_job_state
-- Remember where a job stands; if a state is expected, only if it stands there.
UPDATE jobs SET state = :state WHERE id = :job AND state = COALESCE(:expected, state);

-- name: frozen_end
-- Return whether a job is read to its end, and where its last batch ends; parts are no news of that.
SELECT read_complete, sequence, end_offset, end_index
FROM jobs LEFT JOIN batches ON job = id AND sequence <= 0xFFFFFFFF
WHERE id = :job
ORDER BY sequence DESC
LIMIT 1;

-- name: set_read_complete
-- Remember that a job's sources are frozen to their last byte.
UPDATE jobs SET read_complete = 1 WHERE id = :job;

-- name: add_batch
-- Freeze a batch.
INSERT INTO batches (
  job, sequence, start_offset, start_index, start_line, end_offset, end_index, end_line, count, size_bytes, sha256,
  skipped, state, remote_id, changed_at, note, created, failed, sent_at
)
VALUES (
  :job, :sequence, :start_offset, :start_index, :start_line, :end_offset, :end_index, :end_line, :count, :size_bytes,
  :sha256, :skipped, :state, NULL, :changed_at, '', 0, 0, :sent_at
);

-- name: add_spans
-- Freeze where the records of a batch stand.
INSERT INTO spans (job, sequence, spans, lines) VALUES (:job, :sequence, :spans, :lines);

-- name: add_reject
-- Remember a record that is not fit to be sent.
INSERT INTO rejects (job, record_index, start_offset, length, line, reason)
VALUES (:job, :record_index, :start_offset, :length, :line, :reason);

-- name: add_keys
-- Remember the keys of records side by side.
INSERT INTO keys (job, record_index, keys) VALUES (:job, :record_index, :keys);

-- name: add_skip
-- Remember records that are skipped.
INSERT INTO skips (job, record_index, count, start_offset, spans, other, other_index, why)
VALUES (:job, :record_index, :count, :start_offset, :spans, :other, :other_index, :why);

-- name: copy_known
-- Keep what is known by a hash beside what will be.
INSERT INTO copies (hash, job, record_index, rest)
SELECT hash, job, record_index, rest FROM known WHERE hash = :hash
ON CONFLICT DO NOTHING;

-- name: add_copy
-- Remember one more record of a hash that is known.
INSERT INTO copies (hash, rest, job, record_index) VALUES (:hash, :rest, :job, :record_index);

-- name: add_known
-- Remember which job has taken a record last.
INSERT INTO known (hash, rest, job, record_index) VALUES (:hash, :rest, :job, :record_index)
ON CONFLICT (hash) DO UPDATE SET rest = excluded.rest, job = excluded.job, record_index = excluded.record_index;

-- name: set_taken_over
-- Remember that another job has sent records of this one.
UPDATE jobs SET taken_over = :by WHERE id = :job;

-- name: taken_over
-- Name the job that has sent records of this one since it was ended.
SELECT later.name FROM jobs JOIN jobs AS later ON later.id = jobs.taken_over WHERE jobs.id = :job;

-- name: keep_orphan
-- Keep the remote id that the coming step of a batch gives up, if it has one.
INSERT INTO orphans (job, sequence, remote_id)
SELECT job, sequence, remote_id FROM batches
WHERE
  job = :job AND sequence = :sequence AND remote_id IS NOT NULL
  AND remote_id IS DISTINCT FROM CAST(:remote_id AS TEXT)
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

-- name: state
-- Tell where a batch stands and how many of its records go up.
SELECT state, count FROM batches WHERE job = :job AND sequence = :sequence;

-- name: add_settlement
-- Keep the fate of each record of a batch.
INSERT INTO settlements (job, sequence, task_ids, errors, details, uncertain)
VALUES (:job, :sequence, :task_ids, :errors, :details, :uncertain_for);

-- name: settlements
-- Read the fate of each record of some batches (a JSON array), those that are settled; a batch of no records has no row
-- among the settlements.
SELECT sequence, task_ids, errors, details, settlements.uncertain
FROM batches LEFT JOIN settlements USING (job, sequence)
WHERE job = :job AND sequence IN (SELECT value FROM json_each(:sequences)) AND state = 'settled';

-- name: kept
-- Read what a batch's own row counts, and the fate of its records if it is kept, whatever the batch's state: to audit.
SELECT created, failed, batches.uncertain, task_ids, errors, details, settlements.uncertain
FROM batches LEFT JOIN settlements USING (job, sequence)
WHERE job = :job AND sequence = :sequence;

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

-- name: last_batch
-- Read the batch frozen last.
SELECT
  sequence, start_offset, start_index, start_line, end_offset, end_index, end_line, count, size_bytes, sha256, spans,
  skipped, lines
FROM batches JOIN spans USING (job, sequence)
WHERE job = :job AND sequence <= 0xFFFFFFFF
ORDER BY sequence DESC
LIMIT 1;

-- name: names
-- Return whether a batch of any job has this name at the service; by job, as the index of names is.
SELECT 1 FROM jobs CROSS JOIN batches ON job = id WHERE remote_id = :remote_id LIMIT 1;

-- name: may_have_arrived
-- Return whether a release of a batch of a job that counts as unsent may have arrived.
SELECT 1 FROM batches WHERE job = :job AND sent_at IS NOT NULL AND state IN ('frozen', 'staging', 'staged') LIMIT 1;

-- name: last_settled_at
-- Read when a batch of a job was settled last; 0 if none was.
SELECT COALESCE(MAX(changed_at), 0) FROM batches WHERE job = :job AND state = 'settled';

-- name: count_unproven
-- Count the created records of a job whose id may be that of another record of their batch.
SELECT COUNT(*)
FROM settlements, json_each(settlements.details)
WHERE job = :job AND details LIKE '%"id_proven":false%' AND json_extract(json_each.value, '$.id_proven') = 0;

-- name: parts
-- Read the parts that stand for a batch, in the order of their records, and stand in one of some states.
SELECT
  sequence, start_offset, start_index, start_line, end_offset, end_index, end_line, count, size_bytes, sha256, spans,
  skipped, lines, state, remote_id, changed_at, note, sent_at
FROM batches JOIN spans USING (job, sequence)
WHERE
  job = :job AND sequence > 0xFFFFFFFF AND sequence & 0xFFFFFFFF = :sequence
  AND state IN (SELECT value FROM json_each(:states))
ORDER BY start_index;

-- name: batches
-- Read the batches after one of them, and up to another, that stand in one of some states (a JSON array), with their
-- submissions.
SELECT
  sequence, start_offset, start_index, start_line, end_offset, end_index, end_line, count, size_bytes, sha256, spans,
  skipped, lines, state, remote_id, changed_at, note, sent_at
FROM batches JOIN spans USING (job, sequence)
WHERE
  job = :job AND sequence > :after AND sequence <= :last AND state IN (SELECT value FROM json_each(:states))
ORDER BY sequence
LIMIT :limit;

-- name: batch
-- Read one batch or part.
SELECT
  sequence, start_offset, start_index, start_line, end_offset, end_index, end_line, count, size_bytes, sha256, spans,
  skipped, lines, state, remote_id, changed_at, note, sent_at
FROM batches JOIN spans USING (job, sequence)
WHERE job = :job AND sequence = :sequence;

-- name: batch_at
-- Read the batch that holds one record; of batches within each other the smallest.
SELECT
  sequence, start_offset, start_index, start_line, end_offset, end_index, end_line, count, size_bytes, sha256, spans,
  skipped, lines, state, remote_id, changed_at, note, sent_at
FROM batches JOIN spans USING (job, sequence)
WHERE job = :job AND start_index <= :record_index AND end_index > :record_index AND state <> 'split'
ORDER BY end_index - start_index
LIMIT 1;

-- name: rejects
-- Read the rejects in a range of records.
SELECT record_index, start_offset, length, line, reason
FROM rejects
WHERE job = :job AND record_index >= :start AND record_index < :stop
ORDER BY record_index;

-- name: skips
-- Read the skips that begin in a range of records.
SELECT record_index, count, start_offset, spans, name, other_index, why
FROM skips JOIN jobs ON id = other
WHERE job = :job AND record_index >= :start AND record_index < :stop
ORDER BY record_index;

-- name: count_skipped
-- Count the skipped records of a job, wherever they stand.
SELECT COALESCE(SUM(count), 0) FROM skips WHERE job = :job;

-- name: held_back
-- Count the skipped records that the other job has not plainly created, by why and by that job.
SELECT why, name, SUM(count)
FROM skips JOIN jobs ON id = other
WHERE job = :job AND why <> 'created'
GROUP BY why, name;

-- name: count_rejects
-- Count the rejects of a job, wherever they stand.
SELECT COUNT(*) FROM rejects WHERE job = :job;

-- name: batches_without_spans
-- Name batches of which it is not known where their records stand; every other read passes over them.
SELECT sequence
FROM batches LEFT JOIN spans USING (job, sequence)
WHERE job = :job AND spans IS NULL
ORDER BY sequence
LIMIT :limit;

-- name: badly_split
-- Name batches and parts that are split, and whose two halves do not begin and end where they do.
SELECT whole.sequence
FROM batches AS whole
LEFT JOIN batches AS first
  ON first.job = whole.job
  AND first.sequence = (2 * MAX(whole.sequence >> 32, 1) << 32) + (whole.sequence & 0xFFFFFFFF)
LEFT JOIN batches AS second
  ON second.job = whole.job
  AND second.sequence = (2 * MAX(whole.sequence >> 32, 1) + 1 << 32) + (whole.sequence & 0xFFFFFFFF)
WHERE
  whole.job = :job AND whole.state = 'split' AND (
    (whole.start_offset, whole.start_index, whole.start_line, whole.end_offset, whole.end_index, whole.end_line)
    IS NOT
    (first.start_offset, first.start_index, first.start_line, second.end_offset, second.end_index, second.end_line)
  )
LIMIT :limit;

-- name: inconsistent_rows
-- Name tables with rows that hang on a row that is not there, and the tables that should hold it.
PRAGMA foreign_key_check;

-- name: tally
-- Count batches and records by state, parts in the place of what they are parts of; sums over batches, so 10,000,000
-- records in 10,000 batches take milliseconds.
SELECT
  state, COUNT(*), SUM(count), SUM(created), SUM(failed), SUM(uncertain),
  SUM(end_index - start_index - count - skipped), SUM(skipped), MAX(end_index)
FROM batches
WHERE job = :job AND state <> 'split'
GROUP BY state;

-- name: add_later_fate
-- Keep what became of a created record's task afterwards, in the place of what was known before.
INSERT INTO later_fates (job, record_index, fate, reason, seen_at)
VALUES (:job, :record_index, :fate, :reason, :seen_at)
ON CONFLICT (job, record_index) DO UPDATE
SET fate = excluded.fate, reason = excluded.reason, seen_at = excluded.seen_at;

-- name: drop_later_fate
-- Forget what became of a record's task afterwards: it is not so any more.
DELETE FROM later_fates WHERE job = :job AND record_index = :record_index;

-- name: later_fates
-- Read what became of the tasks of a range of records afterwards.
SELECT record_index, fate, reason, seen_at FROM later_fates
WHERE job = :job AND record_index >= :start AND record_index < :stop;

-- name: count_later
-- Count the created records of a job by what became of their tasks afterwards. What was known of a task when its record
-- was settled stands with the settlement.
SELECT fate, COUNT(*) FROM later_fates WHERE job = :job GROUP BY fate
UNION ALL
SELECT json_extract(json_each.value, '$.later'), COUNT(*)
FROM settlements, json_each(settlements.details)
WHERE job = :job AND details LIKE '%"later":%' AND json_extract(json_each.value, '$.later') IS NOT NULL
GROUP BY 1;

-- name: last_later_at
-- Read when something became known of a task of the job afterwards; 0 if nothing did.
SELECT COALESCE(MAX(seen_at), 0) FROM later_fates WHERE job = :job;

-- name: forget_orphan
-- Drop a remote id that is gone from the service.
DELETE FROM orphans WHERE job = :job AND remote_id = :remote_id;

-- name: orphans
-- Name what was staged and given up, oldest batch first; what a batch found again and took back is no orphan.
SELECT remote_id FROM orphans
WHERE job = :job AND NOT EXISTS (
  SELECT 1 FROM batches
  WHERE batches.job = orphans.job AND batches.sequence = orphans.sequence AND batches.remote_id = orphans.remote_id
)
ORDER BY sequence;

-- name: known
-- Find which job has taken records last, by their hashes (a JSON array).
SELECT hash, rest, job, record_index FROM known WHERE hash IN (SELECT value FROM json_each(:hashes));

-- name: copies
-- Find the further records of a hash.
SELECT rest, job, record_index FROM copies WHERE hash = :hash;

-- name: keys_at
-- Find the keys of records side by side, the first of which stands at or before a record.
SELECT record_index, keys FROM keys
WHERE job = :job AND record_index <= :record_index
ORDER BY record_index DESC
LIMIT 1;

-- name: keys_like
-- Find the keys of records side by side of which one may be a key.
SELECT record_index, keys FROM keys WHERE job = :job AND INSTR(keys, :key) ORDER BY record_index;

-- name: read_mapped
-- Prepare a connection that only reads: pages come from the system's memory, which all processes share.
PRAGMA mmap_size = 1099511627776;
PRAGMA temp_store = FILE;

-- name: standing
-- Read the name and the state of a job, and whether anything of it was undone.
SELECT name, state, EXISTS (SELECT 1 FROM later_fates WHERE job = id AND fate = 'undone')
FROM jobs WHERE id = :job;

-- name: places
-- Read the batches of a job that send something: where each begins, and whether all of it was created.
SELECT start_index, sequence, state = 'settled' AND created = count
FROM batches
WHERE job = :job AND state <> 'split' AND count > 0
ORDER BY start_index;

-- name: is_undone
-- Return whether a created record was taken back.
SELECT 1 FROM later_fates WHERE job = :job AND record_index = :record_index AND fate = 'undone';

-- name: covering_skip
-- Find the skip of a job that may cover a record of another one: the last one that begins at or before it.
SELECT record_index, count, other_index
FROM skips
WHERE job = :job AND other = :other AND other_index <= :other_index
ORDER BY other_index DESC
LIMIT 1;

-- name: family_records
-- Read which records the jobs of a family have taken last, up to one of them, and without what that one has taken.
SELECT job, record_index, hash, rest
FROM known
WHERE job IN (SELECT id FROM jobs WHERE family = :family AND id < :own)
ORDER BY job, record_index;

-- name: skipped_by
-- Read for which records of other jobs a job has skipped its own.
SELECT other, other_index, count FROM skips WHERE job = :own ORDER BY other, other_index;

-- name: skip_at
-- Find the skip that may hold a record of a job.
SELECT record_index, count, start_offset, spans, other, other_index
FROM skips WHERE job = :job AND record_index <= :record_index
ORDER BY record_index DESC
LIMIT 1;

-- name: family_created
-- Count the records that the jobs of a family have created, those taken back included.
SELECT COALESCE(SUM(created), 0) FROM jobs CROSS JOIN batches ON job = id WHERE family = :family AND batches.state <> 'split';

-- name: add_run
-- Remember that a process begins to work on a job.
INSERT INTO runs (
  job, number, begun_at, ended_at, exit_code, reason, host, version, counts, command, counts_before
)
VALUES (
  :job, :number, :begun_at, :ended_at, :exit_code, :reason, :host, :version, :counts, :command, :counts_before
);

-- name: set_run
-- Remember what a run has done so far, and how it ended if it did.
UPDATE runs SET ended_at = :ended_at, exit_code = :exit_code, reason = :reason, counts = :counts
WHERE job = :job AND number = :number;

-- name: runs
-- Read the runs of a job, oldest first.
SELECT number, begun_at, host, version, ended_at, exit_code, reason, counts, command, counts_before
FROM runs WHERE job = :job ORDER BY number;

-- name: load_standing
-- Tell when a run of a load ended well, when one ended at all, and how; a load is a family, or a job that is of none.
-- Commands that load nothing (a JSON array) do not count: that a job was canceled well is no success of the load.
WITH ended AS (
  SELECT ended_at, exit_code FROM jobs CROSS JOIN runs ON job = id
  WHERE ended_at IS NOT NULL AND (family = :load OR family = '' AND name = :load)
    AND command NOT IN (SELECT value FROM json_each(:loading_nothing))
)
SELECT
  COALESCE((SELECT MAX(ended_at) FROM ended WHERE exit_code = 0), 0),
  COALESCE((SELECT MAX(ended_at) FROM ended), 0),
  (SELECT exit_code FROM ended ORDER BY ended_at DESC LIMIT 1);

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

-- name: samples
-- Read the samples of a run, oldest first.
SELECT figures FROM samples WHERE job = :job AND run = :run ORDER BY at;

-- name: keep_audit
-- Remember what the last audit of a job found.
INSERT INTO audits (job, verdict) VALUES (:job, :verdict)
ON CONFLICT (job) DO UPDATE SET verdict = excluded.verdict;

-- name: last_audit
-- Read what the last audit of a job found.
SELECT verdict FROM audits WHERE job = :job;

-- name: job_state
-- Tell where a job stands.
SELECT state FROM jobs WHERE id = :job;

-- name: is_there
-- Return whether there is a job of a name.
SELECT 1 FROM jobs WHERE name = :name;

-- name: last_step_at
-- Read when a job was made, or a batch of it moved last.
SELECT MAX(at) FROM (
  SELECT created_at AS at FROM jobs WHERE id = :job
  UNION ALL
  SELECT MAX(changed_at) FROM batches WHERE job = :job
) AS steps;

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

-- name: remove_some
-- Remove some rows of a job that is being removed, from one of REMOVED_TABLES, by the rest of its key.
DELETE FROM {table}
WHERE job = :job AND ({key}) IN (SELECT {key} FROM {table} WHERE job = :job LIMIT :limit);

-- name: remove_job
-- Remove a job of which nothing else is left.
DELETE FROM jobs WHERE id = :job AND state = 'removed';

-- name: settled_after
-- Name the next settled batches of a job after one of them: a slice to search.
SELECT sequence FROM settlements WHERE job = :job AND sequence > :after ORDER BY sequence LIMIT :limit;

-- name: find_task
-- Find the batches of a slice that hold a task, by its id as it stands in the JSON.
SELECT sequence, task_ids FROM settlements
WHERE job = :job AND sequence > :after AND sequence <= :last AND task_ids LIKE :pattern ESCAPE '\'
ORDER BY sequence
LIMIT :limit;

-- name: find_reason
-- Find the batches of a slice in which records failed or are uncertain for a reason that holds a text.
SELECT sequence, errors, settlements.uncertain
FROM batches CROSS JOIN settlements USING (job, sequence)
WHERE
  job = :job AND sequence > :after AND sequence <= :last AND (batches.failed > 0 OR batches.uncertain > 0)
  AND (errors LIKE :pattern ESCAPE '\' OR settlements.uncertain LIKE :pattern ESCAPE '\')
ORDER BY sequence;

-- name: find_reason_of_record
-- Find records of a range that were rejected, or whose tasks failed later, for a reason that holds a text.
SELECT record_index, 'rejected', reason FROM rejects
WHERE job = :job AND record_index >= :start AND record_index < :stop AND reason LIKE :pattern ESCAPE '\'
UNION ALL
SELECT record_index, fate, reason FROM later_fates
WHERE job = :job AND record_index >= :start AND record_index < :stop AND reason LIKE :pattern ESCAPE '\'
ORDER BY record_index
LIMIT :limit;

-- name: find_named
-- Find the batches of a job with a name at the service.
SELECT sequence FROM batches WHERE job = :job AND remote_id = :remote_id ORDER BY sequence LIMIT :limit;

-- name: find_noted
-- Find the batches of a job with a note that holds a text.
SELECT sequence, state, note FROM batches
WHERE job = :job AND state <> 'settled' AND note LIKE :pattern ESCAPE '\'
ORDER BY sequence
LIMIT :limit;

-- name: last_index
-- Read how many records of a job were read.
SELECT COALESCE(MAX(end_index), 0) FROM batches WHERE job = :job;

-- name: batch_list
-- Read what stands in the rows of some batches after one of them, in one of some states (a JSON array), without where
-- their records are.
SELECT sequence, start_index, end_index, count, size_bytes, state, remote_id, changed_at, note, created, failed, uncertain
FROM batches
WHERE job = :job AND sequence > :after AND state IN (SELECT value FROM json_each(:states))
ORDER BY sequence
LIMIT :limit;

-- name: batch_rows
-- Read the same of some batches (a JSON array of their sequences).
SELECT sequence, start_index, end_index, count, size_bytes, state, remote_id, changed_at, note, created, failed, uncertain
FROM batches
WHERE job = :job AND sequence IN (SELECT value FROM json_each(:sequences));

-- name: add_shard
-- Let a worker take some frozen batches side by side.
INSERT INTO shards (job, first, last, state, token, holder, expires_at, losses, lost)
VALUES (:job, :first, :last, 'open', 0, '', 0, 0, '');

-- name: batches_without_shard
-- Name the batches after the last shard of a job, and how many of their records go up: it was begun by one process alone.
SELECT sequence, count FROM batches
WHERE
  job = :job AND sequence > COALESCE((SELECT MAX(last) FROM shards WHERE job = :job), -1) AND sequence <= 0xFFFFFFFF
ORDER BY sequence;

-- name: park_shards
-- Let nobody take the shards any more that others have now lost, too many in all.
UPDATE shards
SET state = 'parked', losses = losses + 1, lost = lost || holder || ' ', holder = '', token = token + 1
WHERE
  job = :job AND state IN ('open', 'settling') AND holder NOT IN ('', :worker)
  AND expires_at <= :store_now AND losses >= :most_losses - 1;

-- name: take_shards
-- Take the lease of shards that nobody has, or that others have lost; what is a worker's own it only renews.
UPDATE shards
SET
  token = token + 1, losses = losses + CASE WHEN holder = '' THEN 0 ELSE 1 END,
  lost = CASE WHEN holder = '' THEN lost ELSE lost || holder || ' ' END,
  holder = :worker, expires_at = :store_now + :seconds
WHERE
  job = :job AND first IN (
    SELECT first FROM shards
    WHERE job = :job AND state IN ('open', 'settling')
      AND (holder = '' OR :over <> 0 AND holder <> :worker AND expires_at <= :store_now)
    ORDER BY first
    LIMIT :limit
  )
RETURNING first, last, state, token, holder, expires_at, losses, lost;

-- name: end_leases
-- End the leases that are over, so that their holders cannot renew them any more.
UPDATE shards
SET token = token + 1, losses = losses + 1, lost = lost || holder || ' ', holder = ''
WHERE job = :job AND holder <> '' AND expires_at <= :store_now;

-- name: held_shards
-- Tell the tokens of those of some shards (a JSON array of their first sequences) that somebody has.
SELECT first, token FROM shards
WHERE job = :job AND first IN (SELECT value FROM json_each(:sequences)) AND holder <> '';

-- name: holder_of
-- Tell who has the lease of the shard of a batch, if anybody, and whether it holds.
SELECT holder, expires_at > :store_now FROM shards
WHERE job = :job AND first <= :sequence AND last >= :sequence AND holder <> '';

-- name: renew_shards
-- Let the leases of a worker last longer.
UPDATE shards SET expires_at = :store_now + :seconds WHERE job = :job AND holder = :worker
RETURNING first;

-- name: end_shards
-- End the shards of a worker of which every record is settled.
UPDATE shards SET state = 'done', holder = '', expires_at = 0
WHERE
  job = :job AND holder = :worker
  AND NOT EXISTS (
    SELECT 1 FROM batches
    WHERE
      batches.job = :job AND batches.sequence BETWEEN shards.first AND shards.last
      AND batches.state NOT IN ('settled', 'split')
  )
  AND NOT EXISTS (
    SELECT 1 FROM batches
    WHERE
      batches.job = :job AND batches.sequence > 0xFFFFFFFF
      AND batches.sequence & 0xFFFFFFFF BETWEEN shards.first AND shards.last
      AND batches.state NOT IN ('settled', 'split')
  )
RETURNING first;

-- name: settle_shards
-- Note of the shards of a worker that only lost answers are left of them.
UPDATE shards SET state = 'settling'
WHERE
  job = :job AND holder = :worker AND state = 'open'
  AND NOT EXISTS (
    SELECT 1 FROM batches
    WHERE
      batches.job = :job AND batches.sequence BETWEEN shards.first AND shards.last
      AND batches.state NOT IN ('settled', 'split', 'uncertain')
  )
  AND NOT EXISTS (
    SELECT 1 FROM batches
    WHERE
      batches.job = :job AND batches.sequence > 0xFFFFFFFF
      AND batches.sequence & 0xFFFFFFFF BETWEEN shards.first AND shards.last
      AND batches.state NOT IN ('settled', 'split', 'uncertain')
  );

-- name: give_back_shards
-- End the leases of a worker, so that another one may take its shards at once; or the next run of the job.
UPDATE shards SET holder = '', expires_at = 0, state = CASE WHEN :left <> 0 THEN 'left' ELSE 'open' END
WHERE job = :job AND holder = :worker;

-- name: withhold_shards
-- Let nobody take the shards that nobody has, before the next run of the job.
UPDATE shards SET state = 'left' WHERE job = :job AND state IN ('open', 'settling') AND holder = '';

-- name: reopen_shards
-- Let workers take what earlier ones have left, and what was parked if a person says so.
UPDATE shards SET state = 'open', losses = 0, lost = ''
WHERE job = :job AND (state = 'left' OR state = 'parked' AND :parked <> 0);

-- name: shards
-- Read the shards of a job.
SELECT first, last, state, token, holder, expires_at, losses, lost FROM shards WHERE job = :job ORDER BY first;

-- name: count_shards
-- Count the shards of a job that are free, those that other workers send or follow, and those of which they only search
-- for what was lost.
SELECT
  COALESCE(SUM(CASE WHEN holder = '' OR expires_at <= :store_now THEN 1 ELSE 0 END), 0),
  COALESCE(SUM(CASE WHEN state = 'open' AND holder NOT IN ('', :worker) AND expires_at > :store_now THEN 1 ELSE 0 END), 0),
  COALESCE(SUM(CASE WHEN state = 'settling' AND holder NOT IN ('', :worker) AND expires_at > :store_now THEN 1 ELSE 0 END), 0)
FROM shards
WHERE job = :job AND state IN ('open', 'settling');

-- name: see_worker
-- Remember that a worker is there.
INSERT INTO workers (job, name, begun_at, seen_at) VALUES (:job, :worker, :store_now, :store_now)
ON CONFLICT (job, name) DO UPDATE SET seen_at = excluded.seen_at;

-- name: forget_worker
-- Remember a worker no longer.
DELETE FROM workers WHERE job = :job AND name = :worker;

-- name: forget_silent_workers
-- Remember the workers no longer of which nothing was heard for as long as a lease lasts, and that have no shard.
DELETE FROM workers
WHERE
  job = :job AND seen_at < :store_now - :seconds
  AND NOT EXISTS (SELECT 1 FROM shards WHERE shards.job = workers.job AND shards.holder = workers.name);

-- name: workers
-- Read the workers of a job, oldest first; the seconds since each was heard of, and until all its leases are over.
SELECT
  name, begun_at, seen_at, :store_now - seen_at,
  (SELECT MAX(expires_at) FROM shards WHERE shards.job = workers.job AND shards.holder = workers.name) - :store_now
FROM workers
WHERE job = :job
ORDER BY begun_at, name;

-- name: store_now
-- Tell the time by the store's clock.
SELECT :store_now;

-- name: make_budget
-- Have a budget, if there is none of that name.
INSERT INTO budgets (name, state) VALUES (:name, '') ON CONFLICT (name) DO NOTHING;

-- name: budget
-- Read a budget; nobody else changes it before this transaction ends.
SELECT state FROM budgets WHERE name = :name;

-- name: set_budget
-- Change a budget.
UPDATE budgets SET state = :state WHERE name = :name;

-- name: read_table
-- Read all of a table, to copy it; there is one such query for each table.
SELECT {columns} FROM {table};

-- name: put_row
-- Add a row of a ledger that is copied to one of the tables; there is one such query for each table.
INSERT INTO {table} ({columns}) VALUES ({values});

-- name: number_next_job
-- Have the next job get a number after all others: SQLite does so by itself.
SELECT MAX(id) FROM jobs;
