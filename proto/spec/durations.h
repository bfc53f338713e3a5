// google.protobuf.Duration to absl::Duration, checked.
#pragma once

#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace google::protobuf {
class Duration;
}

namespace trainyard::spec {

class FieldErrors;

// `lowest` if `value` is malformed (a sign or nanosecond count that protobuf forbids) or not in [lowest, highest].
absl::Duration DurationInRange(FieldErrors& errors, absl::string_view name, const google::protobuf::Duration& value,
                               absl::Duration lowest, absl::Duration highest);

}  // namespace trainyard::spec
