-- A ledger as bulksubmit at 08756e7 wrote it, schema version 2; old.py says how it stands and puts it somewhere.
-- It was made by a run against that commit's own sandbox, copied in the midst of it, as a killed process leaves it. Then
-- its times were moved to begin at 1700000000, and where it lay and whom it spoke to became {folder} and {url}.
PRAGMA application_id = 1651862635;
PRAGMA user_version = 2;

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
, learnt TEXT NOT NULL DEFAULT '') STRICT;
CREATE TABLE sources (
  -- A file of a job, as it was when the job began. Sources are laid end to end: an offset names a byte of the whole.
  job INTEGER NOT NULL REFERENCES jobs (id), -- whose
  number INTEGER NOT NULL,                   -- 0, 1, 2, … in the order given
  path TEXT NOT NULL,                        -- where it lies
  format TEXT NOT NULL,                      -- ndjson, json or csv
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
CREATE INDEX parts ON batches (job, sequence & 0xFFFFFFFF, start_index) WHERE sequence > 0xFFFFFFFF;

INSERT INTO jobs (id, name, service, config, output, state, read_complete, parent, attempt, until, strict, created_at, learnt) VALUES
  (1, 'presigned', 'sama', '[service]
kind = "sama"
base_url = "{url}"
project_id = 42
access_key = "${env:SAMA_ACCESS_KEY}"
mode = "presigned"

[batch]
max_records = 2

[send]
max_in_flight = 1
poll_seconds = 0.01
retry_base_seconds = 0.01
', '{folder}/presigned', 'open', 1, NULL, 1, '', 0, 1700000000.41, 'unmarked'),
  (2, 'inline', 'sama', '[service]
kind = "sama"
base_url = "{url}"
project_id = 42
access_key = "${env:SAMA_ACCESS_KEY}"
mode = "inline"

[batch]
max_records = 2

[send]
max_in_flight = 1
poll_seconds = 0.01
retry_base_seconds = 0.01
', '{folder}/inline', 'open', 1, NULL, 1, '', 0, 1700000002.988, 'marked 1965ad532f450e06');

INSERT INTO sources (job, number, path, format, size, mtime_ns, base) VALUES
  (1, 0, '{folder}/presigned.ndjson', 'ndjson', 269, 1699999999000000000, 0),
  (2, 0, '{folder}/inline.ndjson', 'ndjson', 132, 1699999999000000000, 0);

INSERT INTO batches (job, sequence, start_offset, start_index, start_line, end_offset, end_index, end_line, count, size_bytes, sha256, state, remote_id, changed_at, note, created, failed) VALUES
  (1, 0, 0, 0, 1, 66, 3, 4, 2, 59, X'6EE02DC28D0D50B6E93A436D2F656FD66522156C4187E19EBD1BE5870F007DBC', 'settled', '878561001', 1700000000.44, '', 1, 1),
  (1, 1, 66, 3, 4, 106, 5, 6, 2, 41, X'8F2B8CA1462E7B4FF50DE73AC0B0633BB137A776530A39D9C0119AC97B0FDE22', 'uncertain', '878561002', 1700000002.979, 'status (GET 127.0.0.1:8800/v2/projects/42/batches/878561002.json) was refused: status 404: 404: There is no batch 878561002 in project 42.', 0, 0),
  (1, 2, 106, 5, 6, 146, 7, 8, 2, 41, X'462821E9299835F2613EABA15B86B0E84D93E132F89812AF917569AB7AF7B650', 'released', '878561003', 1700000000.443, '', 0, 0),
  (1, 3, 146, 7, 8, 186, 9, 10, 2, 41, X'11A26077913BBEA7373AE27A984810814E811617ADA593C6A0132AC34A7C3ADC', 'releasing', '878561004', 1700000000.445, '', 0, 0),
  (1, 4, 186, 9, 10, 227, 11, 12, 2, 42, X'D282C75A5ADB1BF96C51E38DB19161FFFCF17602CEF5692E261BA0852B57CBF6', 'frozen', NULL, 1700000000.432, '', 0, 0),
  (1, 5, 227, 11, 12, 269, 13, 1, 2, 43, X'91B987AD93F1AF504BE7DCF9DDF2D69E02EAD4A6074875CFB8DA5A33218C096B', 'frozen', NULL, 1700000000.433, '', 0, 0),
  (2, 0, 0, 0, 1, 44, 2, 3, 2, 137, X'77A11B322D2546F54CDAD25D1CBB67D9BE3806BCAF40537CEDA771022C807C14', 'settled', '878561005', 1700000003.0, '', 2, 0),
  (2, 1, 44, 2, 3, 88, 4, 5, 2, 137, X'A1D2B73E6647789987480BEA7706B291C3F639A0A45C46E0339B2D48BD0A7109', 'uncertain', NULL, 1700000003.0, 'post (POST 127.0.0.1:8800/v2/projects/42/batches.json) may or may not have been applied: the connection was lost before the answer was complete', 0, 0),
  (2, 2, 88, 4, 5, 132, 6, 1, 2, 137, X'71ADF1CD072D9089116BC273A777A9553DD07B4E36A1565152993E545E613594', 'settled', '878561007', 1700000003.013, '', 2, 0);

INSERT INTO spans (job, sequence, spans) VALUES
  (1, 0, X'4900000000130000000900000025000000'),
  (1, 1, X'4900000000130000000100000013000000'),
  (1, 2, X'4900000000130000000100000013000000'),
  (1, 3, X'4900000000130000000100000013000000'),
  (1, 4, X'4900000000130000000100000014000000'),
  (1, 5, X'4900000000140000000100000014000000'),
  (2, 0, X'4900000000150000000100000015000000'),
  (2, 1, X'4900000000150000000100000015000000'),
  (2, 2, X'4900000000150000000100000015000000');

INSERT INTO settlements (job, sequence, task_ids, errors, details) VALUES
  (1, 0, '["6b0aeea1345dc6e900000000",null]', '{"InvalidInputSchema: data.status must not be broken.":[1]}', NULL),
  (2, 0, '["6b0aeea1345dc6ed00000000","6b0aeea1345dc6ed00000001"]', '{}', NULL),
  (2, 2, '["6b0aeea1345dc6ef00000000","6b0aeea1345dc6ef00000001"]', '{}', NULL);

INSERT INTO rejects (job, record_index, start_offset, length, line, reason) VALUES
  (1, 1, 20, 7, 2, 'not valid JSON: invalid literal, expected ''null'' at column 1');
