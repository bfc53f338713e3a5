#include "worker/daemon/identity.h"

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/ids.h"
#include "base/status_macros.h"

namespace trainyard::daemon {

absl::StatusOr<Identity> NextIdentity(const std::string& state_dir, const std::string& host) {
  const std::string id_path = JoinPath(state_dir, "worker_id");
  const std::string count_path = JoinPath(state_dir, "start_count");
  Identity identity;
  identity.incarnation = NewUuid();
  if (FileExists(id_path)) {
    TY_ASSIGN_OR_RETURN(const std::string id, ReadFile(id_path));
    identity.worker_id = std::string(absl::StripAsciiWhitespace(id));
    if (identity.worker_id.empty()) return absl::DataLossError(absl::StrCat(id_path, " is empty"));
  } else {
    identity.worker_id = absl::StrCat(host, "-", NewUuid().substr(0, 8));
    TY_RETURN_IF_ERROR(WriteFileAtomic(id_path, absl::StrCat(identity.worker_id, "\n")));
  }
  if (FileExists(count_path)) {
    TY_ASSIGN_OR_RETURN(const std::string count, ReadFile(count_path));
    if (!absl::SimpleAtoi(count, &identity.start_count)) {
      return absl::DataLossError(absl::StrCat(count_path, " does not hold a number"));
    }
  }
  ++identity.start_count;
  TY_RETURN_IF_ERROR(WriteFileAtomic(count_path, absl::StrCat(identity.start_count, "\n")));
  return identity;
}

}  // namespace trainyard::daemon
