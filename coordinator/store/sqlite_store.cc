#include "coordinator/store/sqlite_store.h"

#include <sqlite3.h>

#include <algorithm>
#include <deque>
#include <iterator>
#include <map>
#include <optional>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "coordinator/store/schema.h"
#include "coordinator/store/statement.h"

namespace trainyard::coordinator {
namespace {

template <typename... F>
struct Overloaded : F... {
  using F::operator()...;
};
template <typename... F>
Overloaded(F...) -> Overloaded<F...>;

constexpr size_t kProbeBytes = 64 << 10;

struct CloseDatabase {
  void operator()(sqlite3* db) const { sqlite3_close_v2(db); }
};

// Prepared once; which of them a write uses is said in Apply.
struct Statements {
  Statement begin, commit, rollback;
  Statement put_job, delete_job, open_attempt, close_attempt, hold_slot, release_slot, put_worker, put_request;
  Statement delete_worker, delete_request, put_event, trim_events, put_metric, thin_metrics, count_metrics, put_stride,
      put_meta;
  Statement put_generation, put_trial;
};

class SqliteStore final : public Store {
 public:
  SqliteStore(SqliteOptions options, FileLock lock, std::unique_ptr<sqlite3, CloseDatabase> db)
      : options_(std::move(options)), lock_(std::move(lock)), db_(std::move(db)) {}

  absl::Status Open();

  absl::StatusOr<Records> Load() override;
  absl::StatusOr<std::vector<StoredEvent>> LoadEvents(uint64_t* compacted_revision) override;
  absl::Status Commit(const std::vector<Write>& writes) override;
  absl::Status Probe() override;
  absl::StatusOr<StoredPoints> ReadMetrics(const std::string& uid, int64_t after_step) override;

 private:
  struct Series {
    int64_t count = 0;
    int64_t stride = 1;
  };
  struct EventSize {
    uint64_t revision;
    int64_t bytes;
  };

  absl::Status CheckSchema();
  absl::Status PrepareAll();
  absl::Status LoadBounds();
  absl::Status Apply(const Write& write);
  absl::Status Apply(const PutMetric& write);
  absl::Status TrimEvents();
  absl::Status PutMeta(const char* key, int64_t value) { return sql_.put_meta.Text(key).Int(value).Run(); }
  absl::StatusOr<int64_t> GetMeta(const std::string& key, int64_t otherwise);
  absl::StatusOr<Series*> SeriesOf(const std::string& uid);
  // Visits the rows of a query; `visit` returns a Status.
  template <typename Visit>
  absl::Status ForEach(absl::string_view sql, const Visit& visit);

  const SqliteOptions options_;
  const FileLock lock_;
  const std::unique_ptr<sqlite3, CloseDatabase> db_;
  Statements sql_;  // after db_, so that they end first
  int64_t leader_epoch_ = 0;
  // Mirrors of what the tables hold, for trimming without asking; loaded again after a failed commit.
  std::map<std::string, Series> series_;
  std::deque<EventSize> events_;
  int64_t event_bytes_ = 0;
};

absl::Status SqliteStore::Open() {
  for (const char* pragma : {"PRAGMA locking_mode=EXCLUSIVE", "PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL",
                             "PRAGMA foreign_keys=ON", "PRAGMA wal_autocheckpoint=1000"}) {
    TY_RETURN_IF_ERROR(Execute(db_.get(), pragma));
  }
  std::string damage;
  TY_RETURN_IF_ERROR(ForEach("PRAGMA quick_check", [&](const Statement& row) {
    if (row.ColumnBytes(0) != "ok") absl::StrAppend(&damage, damage.empty() ? "" : "; ", row.ColumnBytes(0));
    return absl::OkStatus();
  }));
  if (!damage.empty()) {
    return absl::DataLossError(absl::StrCat("the database in ", options_.directory, " is damaged: ", damage,
                                            "; restore a copy (docs/operations.md)"));
  }
  TY_RETURN_IF_ERROR(CheckSchema());
  TY_RETURN_IF_ERROR(PrepareAll());
  TY_ASSIGN_OR_RETURN(leader_epoch_, GetMeta("leader_epoch", 0));
  ++leader_epoch_;
  TY_RETURN_IF_ERROR(PutMeta("leader_epoch", leader_epoch_));  // durable: autocommit with synchronous=FULL
  return LoadBounds();
}

absl::Status SqliteStore::CheckSchema() {
  int64_t version = 0;
  TY_RETURN_IF_ERROR(ForEach("PRAGMA user_version", [&](const Statement& row) {
    version = row.ColumnInt(0);
    return absl::OkStatus();
  }));
  if (version == kSchemaVersion) return absl::OkStatus();
  if (version > kSchemaVersion) {
    return absl::FailedPreconditionError(absl::StrCat("the database in ", options_.directory, " has schema version ",
                                                      version, "; this release knows ", kSchemaVersion));
  }
  static_assert(std::size(kUpgrades) == kSchemaVersion - 1);
  std::string sql = version == 0 ? kSchema : "";
  for (int64_t from = std::max<int64_t>(version, 1); from < kSchemaVersion; ++from) {
    absl::StrAppend(&sql, kUpgrades[from - 1]);
  }
  return Execute(db_.get(), absl::StrCat("BEGIN IMMEDIATE;", sql, "PRAGMA user_version=", kSchemaVersion, ";COMMIT;"));
}

absl::Status SqliteStore::PrepareAll() {
  const std::pair<Statement*, const char*> all[] = {
      {&sql_.begin, "BEGIN IMMEDIATE"},
      {&sql_.commit, "COMMIT"},
      {&sql_.rollback, "ROLLBACK"},
      {&sql_.put_job,
       "INSERT INTO jobs (uid, namespace, name, state, revision, committed_step, record) VALUES (?,?,?,?,?,?,?) "
       "ON CONFLICT (uid) DO UPDATE SET state=excluded.state, revision=excluded.revision, "
       "committed_step=excluded.committed_step, record=excluded.record"},
      {&sql_.delete_job, "DELETE FROM jobs WHERE uid=?"},
      {&sql_.open_attempt, "INSERT INTO attempts (job_uid, number, fence, live) VALUES (?,?,?,1)"},
      {&sql_.close_attempt, "UPDATE attempts SET live=0 WHERE job_uid=? AND number=?"},
      {&sql_.hold_slot, "INSERT INTO held_slots (worker_id, slot, job_uid, fence) VALUES (?,?,?,?)"},
      {&sql_.release_slot, "DELETE FROM held_slots WHERE worker_id=? AND slot=? AND fence=?"},
      {&sql_.put_worker, "INSERT OR REPLACE INTO workers (worker_id, record) VALUES (?,?)"},
      {&sql_.delete_worker, "DELETE FROM workers WHERE worker_id=?"},
      {&sql_.put_request, "INSERT INTO requests (namespace, request_id, method, record) VALUES (?,?,?,?)"},
      {&sql_.delete_request, "DELETE FROM requests WHERE namespace=? AND request_id=? AND method=?"},
      {&sql_.put_event, "INSERT INTO events (revision, job_uid, job) VALUES (?,?,?)"},
      {&sql_.trim_events, "DELETE FROM events WHERE revision<=?"},
      {&sql_.put_metric, "INSERT OR REPLACE INTO metrics (job_uid, step, point) VALUES (?,?,?)"},
      {&sql_.thin_metrics, "DELETE FROM metrics WHERE job_uid=? AND step % ? <> 0"},
      {&sql_.count_metrics, "SELECT count(*) FROM metrics WHERE job_uid=?"},
      {&sql_.put_stride, "INSERT OR REPLACE INTO metric_strides (job_uid, stride) VALUES (?,?)"},
      {&sql_.put_meta, "INSERT OR REPLACE INTO meta (key, value) VALUES (?,?)"},
      {&sql_.put_generation, "INSERT INTO generations (parent_uid, number, record) VALUES (?,?,?)"},
      {&sql_.put_trial, "INSERT INTO trials (parent_uid, generation, trial_index, job_uid) VALUES (?,?,?,?)"},
  };
  for (const auto& [statement, sql] : all) {
    TY_ASSIGN_OR_RETURN(*statement, Statement::Prepare(db_.get(), sql));
  }
  return absl::OkStatus();
}

template <typename Visit>
absl::Status SqliteStore::ForEach(absl::string_view sql, const Visit& visit) {
  TY_ASSIGN_OR_RETURN(Statement statement, Statement::Prepare(db_.get(), sql));
  while (true) {
    TY_ASSIGN_OR_RETURN(const bool has_row, statement.Step());
    if (!has_row) return absl::OkStatus();
    TY_RETURN_IF_ERROR(visit(statement));
  }
}

absl::Status SqliteStore::LoadBounds() {
  series_.clear();
  events_.clear();
  event_bytes_ = 0;
  return ForEach("SELECT revision, length(job) FROM events ORDER BY revision", [&](const Statement& row) {
    events_.push_back({static_cast<uint64_t>(row.ColumnInt(0)), row.ColumnInt(1)});
    event_bytes_ += row.ColumnInt(1);
    return absl::OkStatus();
  });
}

absl::StatusOr<int64_t> SqliteStore::GetMeta(const std::string& key, int64_t otherwise) {
  int64_t value = otherwise;
  TY_RETURN_IF_ERROR(ForEach("SELECT key, value FROM meta", [&](const Statement& row) {
    if (row.ColumnBytes(0) == key) value = row.ColumnInt(1);
    return absl::OkStatus();
  }));
  return value;
}

template <typename Record>
absl::Status Parse(absl::string_view bytes, const char* table, Record* record) {
  if (record->ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat("a record of table ", table, " (", bytes.size(), " bytes) cannot be read"));
}

absl::StatusOr<Records> SqliteStore::Load() {
  Records records;
  TY_RETURN_IF_ERROR(ForEach("SELECT record FROM jobs ORDER BY uid", [&](const Statement& row) {
    return Parse(row.ColumnBytes(0), "jobs", &records.jobs.emplace_back());
  }));
  TY_RETURN_IF_ERROR(ForEach("SELECT record FROM workers ORDER BY worker_id", [&](const Statement& row) {
    return Parse(row.ColumnBytes(0), "workers", &records.workers.emplace_back());
  }));
  TY_RETURN_IF_ERROR(ForEach("SELECT record FROM requests", [&](const Statement& row) {
    return Parse(row.ColumnBytes(0), "requests", &records.requests.emplace_back());
  }));
  TY_RETURN_IF_ERROR(ForEach("SELECT record FROM generations ORDER BY parent_uid, number", [&](const Statement& row) {
    return Parse(row.ColumnBytes(0), "generations", &records.generations.emplace_back());
  }));
  TY_ASSIGN_OR_RETURN(const int64_t fence, GetMeta("next_fence", 1));
  TY_ASSIGN_OR_RETURN(const int64_t revision, GetMeta("revision", 0));
  records.next_fence = static_cast<uint64_t>(fence);
  records.revision = static_cast<uint64_t>(revision);
  records.leader_epoch = static_cast<uint64_t>(leader_epoch_);
  return records;
}

absl::StatusOr<std::vector<StoredEvent>> SqliteStore::LoadEvents(uint64_t* compacted_revision) {
  std::vector<StoredEvent> events;
  TY_RETURN_IF_ERROR(ForEach("SELECT revision, job FROM events ORDER BY revision", [&](const Statement& row) {
    auto job = std::make_shared<v1::Job>();
    TY_RETURN_IF_ERROR(Parse(row.ColumnBytes(1), "events", job.get()));
    events.push_back({static_cast<uint64_t>(row.ColumnInt(0)), std::move(job)});
    return absl::OkStatus();
  }));
  TY_ASSIGN_OR_RETURN(const int64_t revision, GetMeta("revision", 0));
  *compacted_revision = events.empty() ? static_cast<uint64_t>(revision) : events.front().revision - 1;
  return events;
}

absl::Status SqliteStore::Commit(const std::vector<Write>& writes) {
  absl::Status status = sql_.begin.Run();
  for (const Write& write : writes) {
    if (!status.ok()) break;
    status = Apply(write);
  }
  if (status.ok()) status = TrimEvents();
  if (status.ok()) status = sql_.commit.Run();
  if (status.ok()) return status;
  if (sqlite3_get_autocommit(db_.get()) == 0) sql_.rollback.Run().IgnoreError();  // `status` says what went wrong
  LoadBounds().IgnoreError();  // only bounds; the next commit trims by what it can see
  return status;
}

absl::Status SqliteStore::Apply(const Write& write) {
  return std::visit(
      Overloaded{
          [&](const PutJob& w) {
            const v1::Job& job = w.record.job();
            const std::string bytes = w.record.SerializeAsString();
            return sql_.put_job.Text(job.uid())
                .Text(job.namespace_())
                .Text(job.name())
                .Int(job.state())
                .Int(static_cast<int64_t>(w.record.revision()))
                .Int(job.committed_step())
                .Blob(bytes)
                .Run();
          },
          [&](const DeleteJob& w) {
            series_.erase(w.uid);
            return sql_.delete_job.Text(w.uid).Run();
          },
          [&](const OpenAttempt& w) {
            return sql_.open_attempt.Text(w.uid).Int(w.number).Int(static_cast<int64_t>(w.fence)).Run();
          },
          [&](const CloseAttempt& w) { return sql_.close_attempt.Text(w.uid).Int(w.number).Run(); },
          [&](const HoldSlot& w) {
            return sql_.hold_slot.Text(w.worker_id).Int(w.slot).Text(w.uid).Int(static_cast<int64_t>(w.fence)).Run();
          },
          [&](const ReleaseSlot& w) {
            return sql_.release_slot.Text(w.worker_id).Int(w.slot).Int(static_cast<int64_t>(w.fence)).Run();
          },
          [&](const PutWorker& w) {
            const std::string bytes = w.record.SerializeAsString();
            return sql_.put_worker.Text(w.record.worker_id()).Blob(bytes).Run();
          },
          [&](const DeleteWorker& w) { return sql_.delete_worker.Text(w.worker_id).Run(); },
          [&](const PutRequest& w) {
            const std::string bytes = w.record.SerializeAsString();
            return sql_.put_request.Text(w.record.namespace_())
                .Text(w.record.request_id())
                .Text(w.record.method())
                .Blob(bytes)
                .Run();
          },
          [&](const DeleteRequest& w) {
            return sql_.delete_request.Text(w.name_space).Text(w.request_id).Text(w.method).Run();
          },
          [&](const PutMetric& w) { return Apply(w); },
          [&](const PutEvent& w) {
            const std::string bytes = w.job->SerializeAsString();
            const int64_t revision = static_cast<int64_t>(w.revision);
            TY_RETURN_IF_ERROR(sql_.put_event.Int(revision).Text(w.job->uid()).Blob(bytes).Run());
            events_.push_back({w.revision, static_cast<int64_t>(bytes.size())});
            event_bytes_ += static_cast<int64_t>(bytes.size());
            return PutMeta("revision", revision);
          },
          [&](const PutGeneration& w) {
            const std::string bytes = w.record.SerializeAsString();
            return sql_.put_generation.Text(w.record.parent_uid()).Int(w.record.number()).Blob(bytes).Run();
          },
          [&](const PutTrial& w) {
            return sql_.put_trial.Text(w.parent_uid).Int(w.generation).Int(w.index).Text(w.uid).Run();
          },
          [&](const PutFence& w) { return PutMeta("next_fence", static_cast<int64_t>(w.next_fence)); },
      },
      write);
}

absl::StatusOr<SqliteStore::Series*> SqliteStore::SeriesOf(const std::string& uid) {
  const auto [it, is_new] = series_.try_emplace(uid);
  if (!is_new) return &it->second;
  const auto read = [&](absl::string_view sql, int64_t* value) -> absl::Status {
    TY_ASSIGN_OR_RETURN(Statement statement, Statement::Prepare(db_.get(), sql));
    statement.Text(uid);
    TY_ASSIGN_OR_RETURN(const bool has_row, statement.Step());
    if (has_row) *value = statement.ColumnInt(0);
    return absl::OkStatus();
  };
  absl::Status status = read("SELECT count(*) FROM metrics WHERE job_uid=?", &it->second.count);
  if (status.ok()) status = read("SELECT stride FROM metric_strides WHERE job_uid=?", &it->second.stride);
  if (status.ok()) return &it->second;
  series_.erase(it);
  return status;
}

// Replacing a point counts it twice until the next thinning counts again; the bound is what matters, not the count.
absl::Status SqliteStore::Apply(const PutMetric& write) {
  TY_ASSIGN_OR_RETURN(Series * series, SeriesOf(write.uid));
  if (write.point.step() % series->stride != 0) return absl::OkStatus();
  const std::string bytes = write.point.SerializeAsString();
  TY_RETURN_IF_ERROR(sql_.put_metric.Text(write.uid).Int(write.point.step()).Blob(bytes).Run());
  if (++series->count <= options_.metric_points_kept) return absl::OkStatus();
  series->stride *= 2;
  TY_RETURN_IF_ERROR(sql_.thin_metrics.Text(write.uid).Int(series->stride).Run());
  TY_RETURN_IF_ERROR(sql_.put_stride.Text(write.uid).Int(series->stride).Run());
  sql_.count_metrics.Text(write.uid);
  while (true) {
    TY_ASSIGN_OR_RETURN(const bool has_row, sql_.count_metrics.Step());
    if (!has_row) return absl::OkStatus();
    series->count = sql_.count_metrics.ColumnInt(0);
  }
}

absl::Status SqliteStore::TrimEvents() {
  const auto too_many = [&] {
    return static_cast<int64_t>(events_.size()) > options_.events_kept || event_bytes_ > options_.event_bytes_kept;
  };
  if (!too_many()) return absl::OkStatus();
  uint64_t last = 0;
  // Down to 9/10, so that it is not one DELETE a commit.
  while (!events_.empty() && (static_cast<int64_t>(events_.size()) > options_.events_kept * 9 / 10 ||
                              event_bytes_ > options_.event_bytes_kept * 9 / 10)) {
    last = events_.front().revision;
    event_bytes_ -= events_.front().bytes;
    events_.pop_front();
  }
  return sql_.trim_events.Int(static_cast<int64_t>(last)).Run();
}

absl::Status SqliteStore::Probe() {
  const std::string bytes(kProbeBytes, '\0');
  TY_RETURN_IF_ERROR(Execute(db_.get(), "BEGIN IMMEDIATE"));
  absl::Status status = Execute(db_.get(), "CREATE TABLE IF NOT EXISTS probe (bytes BLOB)");
  if (status.ok()) {
    TY_ASSIGN_OR_RETURN(Statement insert, Statement::Prepare(db_.get(), "INSERT INTO probe (bytes) VALUES (?)"));
    status = insert.Blob(bytes).Run();
  }
  if (status.ok()) status = Execute(db_.get(), "COMMIT");
  if (!status.ok()) {
    if (sqlite3_get_autocommit(db_.get()) == 0) Execute(db_.get(), "ROLLBACK").IgnoreError();  // reported below
    return status;
  }
  return Execute(db_.get(), "DROP TABLE probe");
}

absl::StatusOr<StoredPoints> SqliteStore::ReadMetrics(const std::string& uid, int64_t after_step) {
  TY_ASSIGN_OR_RETURN(Statement rows, Statement::Prepare(db_.get(),
                                                         "SELECT point FROM metrics WHERE job_uid=? AND step>? "
                                                         "ORDER BY step"));
  rows.Text(uid).Int(after_step);
  StoredPoints points;
  while (true) {
    TY_ASSIGN_OR_RETURN(const bool has_row, rows.Step());
    if (!has_row) return points;
    points.emplace_back(rows.ColumnBytes(0));
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<Store>> OpenSqliteStore(const SqliteOptions& options) {
  TY_RETURN_IF_ERROR(MakeDirs(options.directory));
  auto lock = FileLock::Acquire(JoinPath(options.directory, "coordinator.lock"));
  if (!lock.ok()) {
    return Annotate(lock.status(), absl::StrCat("another coordinator is using ", options.directory));
  }
  sqlite3* raw = nullptr;
  const int code = sqlite3_open_v2(JoinPath(options.directory, "coordinator.db").c_str(), &raw,
                                   SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, nullptr);
  std::unique_ptr<sqlite3, CloseDatabase> db(raw);
  TY_RETURN_IF_ERROR(SqliteStatus(raw, code, absl::StrCat("open the database in ", options.directory)));
  sqlite3_extended_result_codes(raw, 1);
  auto store = std::make_unique<SqliteStore>(options, *std::move(lock), std::move(db));
  TY_RETURN_IF_ERROR(store->Open());
  return std::unique_ptr<Store>(std::move(store));
}

}  // namespace trainyard::coordinator
