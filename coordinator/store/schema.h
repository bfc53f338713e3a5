// Tables of the SQLite store. What must never happen is forbidden here too, not only in the core (CP-57).
#pragma once

namespace trainyard::coordinator {

inline constexpr int kSchemaVersion = 3;

// Records are protocol buffers in `record`; columns beside it exist for the rules and for people with the sqlite3
// shell. job.state values 7, 8, 9 are SUCCEEDED, FAILED, CANCELLED.
inline constexpr char kSchema[] = R"sql(
CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;

CREATE TABLE jobs (
  uid TEXT PRIMARY KEY,
  namespace TEXT NOT NULL,
  name TEXT NOT NULL,
  state INTEGER NOT NULL CHECK (state BETWEEN 1 AND 9),
  revision INTEGER NOT NULL,
  committed_step INTEGER NOT NULL,
  record BLOB NOT NULL
) WITHOUT ROWID;
CREATE UNIQUE INDEX one_live_job_of_a_name ON jobs (namespace, name) WHERE state < 7;
CREATE TRIGGER ended_jobs_stay_ended BEFORE UPDATE OF state ON jobs
  WHEN OLD.state >= 7 AND NEW.state <> OLD.state
  BEGIN SELECT RAISE(ABORT, 'a job may not leave a terminal state'); END;
CREATE TRIGGER committed_steps_only_grow BEFORE UPDATE OF committed_step ON jobs
  WHEN NEW.committed_step < OLD.committed_step
  BEGIN SELECT RAISE(ABORT, 'a committed step may not go down'); END;

CREATE TABLE attempts (
  job_uid TEXT NOT NULL REFERENCES jobs (uid) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
  number INTEGER NOT NULL,
  fence INTEGER NOT NULL UNIQUE,
  live INTEGER NOT NULL CHECK (live IN (0, 1)),
  PRIMARY KEY (job_uid, number)
) WITHOUT ROWID;
CREATE UNIQUE INDEX one_live_attempt_of_a_job ON attempts (job_uid) WHERE live = 1;

CREATE TABLE held_slots (
  worker_id TEXT NOT NULL,
  slot INTEGER NOT NULL,
  job_uid TEXT NOT NULL REFERENCES jobs (uid) DEFERRABLE INITIALLY DEFERRED,
  fence INTEGER NOT NULL,
  PRIMARY KEY (worker_id, slot)
) WITHOUT ROWID;
CREATE INDEX held_slots_by_job ON held_slots (job_uid);

CREATE TABLE requests (
  namespace TEXT NOT NULL,
  request_id TEXT NOT NULL,
  method TEXT NOT NULL,
  record BLOB NOT NULL,
  PRIMARY KEY (namespace, request_id, method)
) WITHOUT ROWID;

CREATE TABLE workers (worker_id TEXT PRIMARY KEY, record BLOB NOT NULL) WITHOUT ROWID;

CREATE TABLE events (
  revision INTEGER PRIMARY KEY,
  job_uid TEXT NOT NULL,
  job BLOB NOT NULL
);

CREATE TABLE metrics (
  job_uid TEXT NOT NULL REFERENCES jobs (uid) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
  step INTEGER NOT NULL,
  point BLOB NOT NULL,
  PRIMARY KEY (job_uid, step)
) WITHOUT ROWID;
CREATE TABLE metric_strides (
  job_uid TEXT PRIMARY KEY REFERENCES jobs (uid) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
  stride INTEGER NOT NULL
) WITHOUT ROWID;
)sql";

// From version i + 1 to i + 2; a new database takes all of them too.
//
// A trial's row goes only with its generation, and that only with the parent; as a job with a row cannot be deleted, no
// outcome is lost before its parent. That there is no second one is the rule about ended jobs.
inline constexpr const char* kUpgrades[] = {R"sql(
CREATE TABLE generations (
  parent_uid TEXT NOT NULL REFERENCES jobs (uid) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
  number INTEGER NOT NULL CHECK (number >= 1),
  record BLOB NOT NULL,
  PRIMARY KEY (parent_uid, number)
) WITHOUT ROWID;
CREATE TRIGGER generations_never_change BEFORE UPDATE ON generations
  BEGIN SELECT RAISE(ABORT, 'a generation may not change'); END;

CREATE TABLE trials (
  parent_uid TEXT NOT NULL,
  generation INTEGER NOT NULL,
  trial_index INTEGER NOT NULL,
  job_uid TEXT NOT NULL UNIQUE REFERENCES jobs (uid) DEFERRABLE INITIALLY DEFERRED,
  PRIMARY KEY (parent_uid, generation, trial_index),
  FOREIGN KEY (parent_uid, generation) REFERENCES generations (parent_uid, number)
    ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED
) WITHOUT ROWID;
CREATE TRIGGER trials_never_change BEFORE UPDATE ON trials
  BEGIN SELECT RAISE(ABORT, 'a trial may not become another job'); END;
)sql",
                                            R"sql(
CREATE TRIGGER held_slots_keep_their_worker BEFORE DELETE ON workers
  WHEN EXISTS (SELECT 1 FROM held_slots WHERE worker_id = OLD.worker_id)
  BEGIN SELECT RAISE(ABORT, 'a worker with held slots may not be deleted'); END;
)sql"};

}  // namespace trainyard::coordinator
