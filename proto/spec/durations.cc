#include "proto/spec/durations.h"

#include <google/protobuf/duration.pb.h>

#include <cstdint>

#include "absl/strings/str_cat.h"
#include "proto/spec/field_errors.h"

namespace trainyard::spec {

absl::Duration DurationInRange(FieldErrors& errors, absl::string_view name, const google::protobuf::Duration& value,
                               absl::Duration lowest, absl::Duration highest) {
  constexpr int32_t kNanosPerSecond = 1'000'000'000;
  const bool opposite_signs = (value.seconds() > 0 && value.nanos() < 0) || (value.seconds() < 0 && value.nanos() > 0);
  if (opposite_signs || value.nanos() <= -kNanosPerSecond || value.nanos() >= kNanosPerSecond) {
    errors.Add(name,
               absl::StrCat("malformed duration: ", value.seconds(), " seconds and ", value.nanos(), " nanoseconds"));
    return lowest;
  }
  return errors.InRange(name, absl::Seconds(value.seconds()) + absl::Nanoseconds(value.nanos()), lowest, highest);
}

}  // namespace trainyard::spec
