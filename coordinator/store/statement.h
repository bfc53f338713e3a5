// A thin, checked wrapper of prepared SQLite statements.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

struct sqlite3;
struct sqlite3_stmt;

namespace trainyard::coordinator {

// The status for a SQLite result code: ResourceExhausted for a full disk, DataLoss for corruption and broken
// constraints, Unavailable for everything else; the message has `what` and SQLite's text.
absl::Status SqliteStatus(sqlite3* db, int code, absl::string_view what);

// Runs one or more statements that return nothing.
absl::Status Execute(sqlite3* db, const std::string& sql);

// Bind with Text/Blob/Int in order, then Run, or Step until it says false. Bound bytes must live until then.
class Statement {
 public:
  static absl::StatusOr<Statement> Prepare(sqlite3* db, absl::string_view sql);
  Statement() = default;
  Statement(Statement&& other) noexcept;
  Statement& operator=(Statement&& other) noexcept;
  ~Statement();

  Statement& Text(absl::string_view text);
  Statement& Blob(absl::string_view bytes);
  Statement& Int(int64_t value);

  // Runs to the end and makes the statement ready for the next use.
  absl::Status Run();
  // True: a row is there. After false or an error the statement is ready for the next use.
  absl::StatusOr<bool> Step();

  int64_t ColumnInt(int column) const;
  absl::string_view ColumnBytes(int column) const;  // valid until the next Step

 private:
  sqlite3* db_ = nullptr;
  sqlite3_stmt* statement_ = nullptr;
  int bound_ = 0;
};

}  // namespace trainyard::coordinator
