// Messages as YAML in the form that yaml_spec.h reads: short enum names, durations as text, times in RFC 3339 UTC.
#pragma once

#include <string>

namespace google::protobuf {
class Message;
}

namespace trainyard::client {

// Fields that are set, in order of their declaration; map entries by key. Ends with a newline; "{}\n" if nothing is
// set.
std::string ToYaml(const google::protobuf::Message& message);

}  // namespace trainyard::client
