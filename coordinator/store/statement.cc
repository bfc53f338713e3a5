#include "coordinator/store/statement.h"

#include <sqlite3.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace trainyard::coordinator {

absl::Status SqliteStatus(sqlite3* db, int code, absl::string_view what) {
  if (code == SQLITE_OK || code == SQLITE_DONE || code == SQLITE_ROW) return absl::OkStatus();
  const std::string message =
      absl::StrCat(what, ": ", db != nullptr ? sqlite3_errmsg(db) : sqlite3_errstr(code), " (sqlite code ", code, ")");
  switch (code & 0xFF) {
    case SQLITE_FULL:
      return absl::ResourceExhaustedError(message);
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
    case SQLITE_CONSTRAINT:
      return absl::DataLossError(message);
    default:
      return absl::UnavailableError(message);
  }
}

absl::Status Execute(sqlite3* db, const std::string& sql) {
  return SqliteStatus(db, sqlite3_exec(db, sql.c_str(), nullptr, nullptr, nullptr), sql.substr(0, 60));
}

absl::StatusOr<Statement> Statement::Prepare(sqlite3* db, absl::string_view sql) {
  Statement statement;
  statement.db_ = db;
  const int code = sqlite3_prepare_v3(db, sql.data(), static_cast<int>(sql.size()), SQLITE_PREPARE_PERSISTENT,
                                      &statement.statement_, nullptr);
  if (code != SQLITE_OK) return SqliteStatus(db, code, sql);
  return statement;
}

Statement::Statement(Statement&& other) noexcept
    : db_(other.db_), statement_(std::exchange(other.statement_, nullptr)), bound_(other.bound_) {}

Statement& Statement::operator=(Statement&& other) noexcept {
  std::swap(db_, other.db_);
  std::swap(statement_, other.statement_);
  std::swap(bound_, other.bound_);
  return *this;
}

Statement::~Statement() {
  sqlite3_finalize(statement_);
}

// An unbound column would be NULL, so binding can only fail by a wrong index: our bug.
Statement& Statement::Text(absl::string_view text) {
  TY_CHECK_EQ(sqlite3_bind_text(statement_, ++bound_, text.data() == nullptr ? "" : text.data(),
                                static_cast<int>(text.size()), SQLITE_STATIC),
              SQLITE_OK);
  return *this;
}

Statement& Statement::Blob(absl::string_view bytes) {
  TY_CHECK_EQ(sqlite3_bind_blob(statement_, ++bound_, bytes.data() == nullptr ? "" : bytes.data(),
                                static_cast<int>(bytes.size()), SQLITE_STATIC),
              SQLITE_OK);
  return *this;
}

Statement& Statement::Int(int64_t value) {
  TY_CHECK_EQ(sqlite3_bind_int64(statement_, ++bound_, value), SQLITE_OK);
  return *this;
}

absl::StatusOr<bool> Statement::Step() {
  const int code = sqlite3_step(statement_);
  if (code == SQLITE_ROW) return true;
  const absl::Status status = SqliteStatus(db_, code, sqlite3_sql(statement_));
  sqlite3_reset(statement_);
  bound_ = 0;
  if (!status.ok()) return status;
  return false;
}

absl::Status Statement::Run() {
  while (true) {
    const absl::StatusOr<bool> row = Step();
    if (!row.ok()) return row.status();
    if (!*row) return absl::OkStatus();
  }
}

int64_t Statement::ColumnInt(int column) const {
  return sqlite3_column_int64(statement_, column);
}

absl::string_view Statement::ColumnBytes(int column) const {
  const void* bytes = sqlite3_column_blob(statement_, column);
  return {static_cast<const char*>(bytes), static_cast<size_t>(sqlite3_column_bytes(statement_, column))};
}

}  // namespace trainyard::coordinator
