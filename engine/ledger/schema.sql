-- The tables of a ledger, as steps from one version to the next. The version of a file is its PRAGMA user_version.
-- A step that has been released is never edited: a change is a new step at the end.
-- Comments stand inside the statements, so that `.schema` in the sqlite3 shell shows them.

-- version 1: jobs, their sources, batches and rejects, and what became of every record
PRAGMA application_id = 1651862635; -- 0x62756C6B, "bulk": names the program to file(1) and keeps us off other files

CREATE TABLE jobs (
  -- One load of sources into a service.
  id INTEGER PRIMARY KEY,         -- its short name in the other tables; grows with time
  name TEXT NOT NULL UNIQUE,      -- its name for people
  service TEXT NOT NULL,          -- kind of the service, such as sama
  config TEXT NOT NULL,           -- the TOML it was submitted with, references to secrets unexpanded
  output TEXT NOT NULL,           -- folder of its reports
  state TEXT NOT NULL,            -- open, finished or canceled
  read_complete INTEGER NOT NULL, -- 1: its sources are frozen into batches to the last byte
  parent TEXT,                    -- name of the job whose failures it retries
  attempt INTEGER NOT NULL,       -- 1, and one more with each retry
  until TEXT NOT NULL,            -- when a record counts as done: created or finished; the service's default if empty
  strict INTEGER NOT NULL,        -- 1: nothing is sent before all is read and found fit
  created_at REAL NOT NULL        -- Unix seconds
) STRICT;

CREATE TABLE sources (
  -- A file of a job, as it was when the job began. Sources are laid end to end: an offset names a byte of the whole.
  job INTEGER NOT NULL REFERENCES jobs (id), -- whose
  number INTEGER NOT NULL,                   -- 0, 1, 2, … in the order given
  path TEXT NOT NULL,                        -- where it lies
  format TEXT NOT NULL,                      -- ndjson, json, csv, or the name that a package gives its format
  size INTEGER NOT NULL,                     -- bytes
  mtime_ns INTEGER NOT NULL,                 -- Unix nanoseconds of its last change
  base INTEGER NOT NULL,                     -- offset of its first byte: the sizes of those before it
  PRIMARY KEY (job, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE batches (
  -- A frozen run of records, and its life at the service. Small, since every step writes its row anew; the long
  -- columns of a batch stand in spans and settlements.
  job INTEGER NOT NULL REFERENCES jobs (id), -- whose
  sequence INTEGER NOT NULL,                 -- 0, 1, 2, … without a gap; each batch starts where the last one ended
  start_offset INTEGER NOT NULL,             -- first byte
  start_index INTEGER NOT NULL,              -- number of its first record in the whole input, from 0
  start_line INTEGER NOT NULL,               -- line of that record in its source, from 1
  end_offset INTEGER NOT NULL,               -- just past its last byte
  end_index INTEGER NOT NULL,                -- number of the first record after it
  end_line INTEGER NOT NULL,                 -- line of that record
  count INTEGER NOT NULL,                    -- records that go up: end_index - start_index without those in rejects
  size_bytes INTEGER NOT NULL,               -- of the payload
  sha256 BLOB NOT NULL,                      -- of the payload
  state TEXT NOT NULL,                       -- frozen, staging, staged, releasing, released, settled or uncertain
  remote_id TEXT,                            -- the service's name for it, once it has one
  changed_at REAL NOT NULL,                  -- Unix seconds of its last step
  note TEXT NOT NULL,                        -- why it is where it is, where that is not plain
  created INTEGER NOT NULL,                  -- once settled: records that became tasks
  failed INTEGER NOT NULL,                   -- once settled: records that the service refused
  PRIMARY KEY (job, sequence)
) STRICT, WITHOUT ROWID;

CREATE TABLE spans (
  -- Where each record of a batch stands in the input.
  job INTEGER NOT NULL,      -- whose
  sequence INTEGER NOT NULL, -- of the batch
  spans BLOB NOT NULL,       -- I or Q, then for each record gap and length as little-endian integers of 4 or 8 bytes
  PRIMARY KEY (job, sequence),
  FOREIGN KEY (job, sequence) REFERENCES batches (job, sequence)
) STRICT, WITHOUT ROWID;

CREATE TABLE settlements (
  -- The fate of each record of a settled batch, by its position among those that went up, from 0.
  job INTEGER NOT NULL,      -- whose
  sequence INTEGER NOT NULL, -- of the batch
  task_ids TEXT NOT NULL,    -- JSON array: the service's id of each record; null where no task was created
  errors TEXT NOT NULL,      -- JSON object: reason → positions that failed for it; a text is kept once per batch
  details TEXT,              -- JSON object: position → what else the service says of its task; null if nothing
  PRIMARY KEY (job, sequence),
  FOREIGN KEY (job, sequence) REFERENCES batches (job, sequence)
) STRICT, WITHOUT ROWID;

CREATE TABLE rejects (
  -- A record that was not fit to be sent.
  job INTEGER NOT NULL REFERENCES jobs (id), -- whose
  record_index INTEGER NOT NULL,             -- its number in the whole input, from 0
  start_offset INTEGER NOT NULL,             -- its first byte
  length INTEGER NOT NULL,                   -- bytes
  line INTEGER NOT NULL,                     -- in its source, from 1
  reason TEXT NOT NULL,                      -- why, naming the field
  PRIMARY KEY (job, record_index)
) STRICT, WITHOUT ROWID;

CREATE TABLE orphans (
  -- What was staged at the service and given up. Nothing was released there, so it is empty.
  job INTEGER NOT NULL,      -- whose
  sequence INTEGER NOT NULL, -- of the batch that was staged again
  remote_id TEXT NOT NULL,   -- the service's name for what it left behind
  PRIMARY KEY (job, sequence, remote_id),
  FOREIGN KEY (job, sequence) REFERENCES batches (job, sequence)
) STRICT, WITHOUT ROWID;

-- version 2: parts of batches, and what the service told before anything was frozen
-- A batch in state split stands aside: two parts stand for it, whose sequences hold its own in the low 32 bits.
CREATE INDEX parts ON batches (job, sequence & 0xFFFFFFFF, start_index) WHERE sequence > 0xFFFFFFFF;

-- jobs.learnt: what the service said before anything was frozen that decides over the payloads; empty: nobody asked
ALTER TABLE jobs ADD COLUMN learnt TEXT NOT NULL DEFAULT '';

-- version 3: what a job remembers of its service, and records of settled batches of which nobody knows what they became
-- jobs.slowest_start: seconds, the longest that a batch whose release was answered went on to be said to wait
ALTER TABLE jobs ADD COLUMN slowest_start REAL NOT NULL DEFAULT 0;

-- jobs.lost_stages: calls that make something there without releasing it, and whose answer was lost
ALTER TABLE jobs ADD COLUMN lost_stages INTEGER NOT NULL DEFAULT 0;

-- settlements.uncertain: JSON object: reason → positions of which nobody knows for it; null if none
ALTER TABLE settlements ADD COLUMN uncertain TEXT;

-- batches.uncertain: once settled: records of which nobody knows
ALTER TABLE batches ADD COLUMN uncertain INTEGER NOT NULL DEFAULT 0;

-- A batch is found by its name at the service: before another one is given that name, and when a search has found it.
CREATE INDEX named ON batches (job, remote_id) WHERE remote_id IS NOT NULL;

-- version 4: loads that come back each night: what their family knows, their runs, and what came of records later
-- jobs.family: name of the load that comes back; empty: it does not
ALTER TABLE jobs ADD COLUMN family TEXT NOT NULL DEFAULT '';

-- jobs.delta: 1: records that its family has created are skipped
ALTER TABLE jobs ADD COLUMN delta INTEGER NOT NULL DEFAULT 0;

-- sources.inode: with path, size and mtime_ns, tells a file from another one while it is read; 0: not known
ALTER TABLE sources ADD COLUMN inode INTEGER NOT NULL DEFAULT 0;

-- jobs.taken_over: job of the family that has sent records which this one, canceled, had not; null: none has
ALTER TABLE jobs ADD COLUMN taken_over INTEGER;

-- batches.skipped: records between its first and its last that are in skips
ALTER TABLE batches ADD COLUMN skipped INTEGER NOT NULL DEFAULT 0;

CREATE TABLE known (
  -- Which job of a family has taken a record last. It is written with the batch, before anything of it is sent; what
  -- became of the record stands with that job. A plain table: 29 to 36 bytes a record.
  hash INTEGER PRIMARY KEY,      -- the first 63 bits of the sha256 of family and record, by its key or by its task
  rest BLOB NOT NULL,            -- the next 4 bytes of it; by key, then 6 bytes of the sha256 of the task
  job INTEGER NOT NULL,          -- whose
  record_index INTEGER NOT NULL  -- its number in the whole input, from 0
) STRICT;

CREATE TABLE copies (
  -- Further records of a hash that stands in known: the same ones twice in a load or while nobody knew what became of
  -- the first, a key whose record was another one before, and other records that happen to have the hash.
  hash INTEGER NOT NULL,         -- as in known
  job INTEGER NOT NULL,          -- likewise
  record_index INTEGER NOT NULL, -- likewise
  rest BLOB NOT NULL,            -- likewise
  PRIMARY KEY (hash, job, record_index)
) STRICT, WITHOUT ROWID;

CREATE TABLE skips (
  -- Records side by side that were not sent, since records side by side of one job of the family are the same.
  job INTEGER NOT NULL REFERENCES jobs (id), -- whose
  record_index INTEGER NOT NULL,             -- number of the first in the whole input, from 0
  count INTEGER NOT NULL,                    -- records
  start_offset INTEGER NOT NULL,             -- first byte of the first
  spans BLOB NOT NULL,                       -- where each stands, from start_offset on: as in spans
  other INTEGER NOT NULL,                    -- the job that has them
  other_index INTEGER NOT NULL,              -- number of the first in its input
  why TEXT NOT NULL,                         -- created: it made them; uncertain: nobody knows; changed: in key mode
  PRIMARY KEY (job, record_index)
) STRICT, WITHOUT ROWID;

-- A key that comes twice in a load is found by it, and what a source no longer has.
CREATE INDEX skipped ON skips (job, other, other_index, count);

-- People hear of these at the end of a run; mostly there are none.
CREATE INDEX held_back ON skips (job, why, other, count) WHERE why <> 'created';

CREATE TABLE runs (
  -- The work of one process on a job.
  job INTEGER NOT NULL REFERENCES jobs (id), -- whose
  number INTEGER NOT NULL,                   -- 1, 2, …
  begun_at REAL NOT NULL,                    -- Unix seconds
  ended_at REAL,                             -- Unix seconds; null while it runs, and for good if it was killed
  exit_code INTEGER,                         -- what the process told its parent; null likewise
  reason TEXT NOT NULL,                      -- why it ended, in words; empty if it came to its end
  host TEXT NOT NULL,                        -- name of the machine
  version TEXT NOT NULL,                     -- of bulksubmit
  counts TEXT NOT NULL,                      -- JSON object: what it did, as far as it is known
  PRIMARY KEY (job, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE samples (
  -- What a run did in some seconds: ten, and the more the longer it runs, so that there are never many.
  job INTEGER NOT NULL,     -- whose
  run INTEGER NOT NULL,     -- its number
  at REAL NOT NULL,         -- Unix seconds
  figures TEXT NOT NULL,    -- JSON object: rates, limits and waits
  PRIMARY KEY (job, run, at),
  FOREIGN KEY (job, run) REFERENCES runs (job, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE origins (
  -- Where a record of a retry comes from: a record of the job's parent.
  job INTEGER NOT NULL REFERENCES jobs (id), -- whose
  record_index INTEGER NOT NULL,             -- its number in the retry
  parent_index INTEGER NOT NULL,             -- its number in the parent
  PRIMARY KEY (job, record_index)
) STRICT, WITHOUT ROWID;

-- A record of the parent is in a retry once.
CREATE UNIQUE INDEX parents ON origins (job, parent_index);

CREATE TABLE later_fates (
  -- What became of a created record's task afterwards.
  job INTEGER NOT NULL REFERENCES jobs (id), -- whose
  record_index INTEGER NOT NULL,             -- its number in the whole input
  fate TEXT NOT NULL,                        -- failed, rejected, completed: its task was; undone: it was taken back
  reason TEXT NOT NULL,                      -- the service's words, or ours
  seen_at REAL NOT NULL,                     -- Unix seconds
  PRIMARY KEY (job, record_index)
) STRICT, WITHOUT ROWID;

-- version 5: what is known of a record when its source is another file by now: its line, and the user's own key
-- sources.ctime_ns: Unix nanoseconds of the last change of the file or of what the file system says of it; 0: not known
ALTER TABLE sources ADD COLUMN ctime_ns INTEGER NOT NULL DEFAULT 0;

-- spans.lines: on which line each record begins. 1: on the first line of the batch, the next one, and so on; or i or q, and
-- runs as little-endian integers of 4 or 8 bytes: by how many lines each is after the one before it (the first one after
-- the line before the batch), and how many records side by side are so; empty: not known
ALTER TABLE spans ADD COLUMN lines BLOB NOT NULL DEFAULT X'';

CREATE TABLE keys (
  -- The user's own keys of records side by side, of a family that knows its records by a key: those that go up and those
  -- that are rejected. A skipped record has the key of the one that it was skipped for.
  job INTEGER NOT NULL REFERENCES jobs (id), -- whose
  record_index INTEGER NOT NULL,             -- number of the first in the whole input, from 0
  keys BLOB NOT NULL,                        -- a line for each: its key as JSON, or #, its length and its sha256
  PRIMARY KEY (job, record_index)
) STRICT, WITHOUT ROWID;

-- version 6: which command a run is, and what of it the ledger can tell though it was killed
-- runs.command: submit, resume, cancel, undo, …, as people type it; empty: an older bulksubmit has written the run
ALTER TABLE runs ADD COLUMN command TEXT NOT NULL DEFAULT '';

-- runs.counts_before: JSON object: the numbers of the job when the run began, as in counts; null: not known
ALTER TABLE runs ADD COLUMN counts_before TEXT;

-- version 7: what the last audit of a job found
CREATE TABLE audits (
  -- The last audit of a job.
  job INTEGER PRIMARY KEY REFERENCES jobs (id), -- whose
  verdict TEXT NOT NULL                         -- JSON object: when it was, whether it holds, what it found
) STRICT;

-- version 8: sources that are packed or elsewhere
-- sources.name: what a person named, where path is a copy of that which we made; empty: path is what was named
ALTER TABLE sources ADD COLUMN name TEXT NOT NULL DEFAULT '';

-- sources.version: tells what was copied from a later one: its ETag, or size, time and inode; empty: not known
ALTER TABLE sources ADD COLUMN version TEXT NOT NULL DEFAULT '';

-- version 9: sources in Parquet
-- sources.row_groups: how many rows each group of rows has, in order, runs of equal ones as TIMES*ROWS: 3*1000 17; empty: no
-- Parquet, or no rows
ALTER TABLE sources ADD COLUMN row_groups TEXT NOT NULL DEFAULT '';

-- version 10: releases that may be repeated
-- batches.sent_at: Unix seconds of the first release that may have arrived, of it or of a batch whose half it is; null: none
ALTER TABLE batches ADD COLUMN sent_at REAL;

UPDATE batches SET sent_at = changed_at WHERE state IN ('releasing', 'uncertain');

-- version 11: jobs that several processes send together
CREATE TABLE shards (
  -- Frozen batches side by side that one process at a time sends, of a job that several share.
  job INTEGER NOT NULL REFERENCES jobs (id), -- whose
  first INTEGER NOT NULL,                    -- sequence of the first batch; parts belong to the batch they are parts of
  last INTEGER NOT NULL,                     -- sequence of the last one
  state TEXT NOT NULL,                       -- open, settling (only lost answers are left), done, left, parked
  token INTEGER NOT NULL,                    -- one more with each lease: who has an older one writes nothing more
  holder TEXT NOT NULL,                      -- worker that has the lease; empty: nobody
  expires_at REAL NOT NULL,                  -- Unix seconds of the store's clock when the lease ends
  losses INTEGER NOT NULL,                   -- leases that were not given back
  lost TEXT NOT NULL,                        -- the workers that had them, one a line
  PRIMARY KEY (job, first)
) STRICT, WITHOUT ROWID;

CREATE TABLE workers (
  -- A process that sends shards of a job.
  job INTEGER NOT NULL REFERENCES jobs (id), -- whose
  name TEXT NOT NULL,                        -- of the worker: host, process and a random part
  begun_at REAL NOT NULL,                    -- Unix seconds of the store's clock
  seen_at REAL NOT NULL,                     -- likewise, when it was heard of last
  PRIMARY KEY (job, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE budgets (
  -- What all processes that call one account of a service share: its limits, and who may use how much of them.
  name TEXT PRIMARY KEY, -- of the service and of the account
  state TEXT NOT NULL    -- JSON object, as engine.adaptive.shared_limits reads it
) STRICT, WITHOUT ROWID;
