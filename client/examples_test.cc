// The files that people start from.
#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>

#include <set>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/testing/status_matchers.h"
#include "client/yaml_spec.h"
#include "gmock/gmock.h"

namespace trainyard::client {
namespace {

TEST(Examples, AllAreValid) {
  ASSERT_OK_AND_ASSIGN(const auto names, ListDir("deploy/examples"));
  int count = 0;
  for (const std::string& name : names) {
    if (name.size() < 5 || name.substr(name.size() - 5) != ".yaml") continue;
    ++count;
    EXPECT_OK(LoadJobFile(JoinPath("deploy/examples", name))) << name;
  }
  EXPECT_GE(count, 2);
}

// Paths of fields that `message` leaves unset. One alternative of a oneof counts for all.
void CollectUnset(const google::protobuf::Message& message, const std::string& path, std::set<std::string>* unset) {
  const auto* reflection = message.GetReflection();
  const auto* type = message.GetDescriptor();
  for (int i = 0; i < type->field_count(); ++i) {
    const auto* field = type->field(i);
    const std::string field_path = path.empty() ? field->name() : absl::StrCat(path, ".", field->name());
    if (field->is_repeated()) {
      if (reflection->FieldSize(message, field) == 0) unset->insert(field_path);
      continue;
    }
    const auto* oneof = field->real_containing_oneof();
    if (oneof != nullptr && reflection->HasOneof(message, oneof) && !reflection->HasField(message, field)) continue;
    if (!reflection->HasField(message, field)) {
      unset->insert(field_path);
    } else if (field->message_type() != nullptr && field->message_type()->file() == v1::JobSpec::descriptor()->file()) {
      CollectUnset(reflection->GetMessage(message, field), field_path, unset);
    }
  }
}

TEST(Examples, PretrainShowsEveryField) {
  ASSERT_OK_AND_ASSIGN(const auto jobs, LoadJobFile("deploy/examples/pretrain.yaml"));
  std::set<std::string> unset;
  CollectUnset(jobs[0].spec, "", &unset);
  // What a job by itself has not, what excludes data.path, and a list that is empty but for GPU slots.
  for (const char* other : {"depends_on", "data.selection", "data.samples", "training.offload"}) unset.erase(other);
  EXPECT_THAT(unset, testing::IsEmpty());
}

}  // namespace
}  // namespace trainyard::client
