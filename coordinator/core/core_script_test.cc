// Each file of testdata/ is a story: a line of input, "----", what it led to, an empty line. To accept what the core
// does now:  bazel run //coordinator/core:core_script_test -- --update   and read the difference before committing.
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/check.h"
#include "base/file.h"
#include "coordinator/core/testing/script.h"
#include "gtest/gtest.h"

namespace trainyard::coordinator {
namespace {

bool update = false;

// Under `bazel run` the tree itself, so that --update writes there; else the test's own copy.
std::string Directory() {
  const char* workspace = std::getenv("BUILD_WORKSPACE_DIRECTORY");
  return absl::StrCat(workspace != nullptr ? absl::StrCat(workspace, "/") : "", "coordinator/core/testdata");
}

std::vector<std::string> Scripts() {
  const auto names = ListDir(Directory());
  TY_CHECK_OK(names);
  return *names;
}

class CoreScriptTest : public ::testing::TestWithParam<std::string> {};

TEST_P(CoreScriptTest, TraceIsAsWritten) {
  const std::string path = JoinPath(Directory(), GetParam());
  const auto content = ReadFile(path);
  ASSERT_TRUE(content.ok());
  Script script;
  std::string actual;
  bool in_trace = false;
  const std::vector<std::string> lines = absl::StrSplit(*content, '\n');
  for (const std::string& line : lines) {
    if (absl::StartsWith(line, "#")) {
      absl::StrAppend(&actual, line, "\n");
    } else if (line.empty()) {
      if (!in_trace) absl::StrAppend(&actual, "\n");
      in_trace = false;
    } else if (line == "----") {
      in_trace = true;
    } else if (!in_trace) {
      absl::StrAppend(&actual, line, "\n----\n", script.Run(line), "\n");
      in_trace = true;
    }
  }
  while (absl::EndsWith(actual, "\n\n")) actual.pop_back();
  if (update) {
    ASSERT_TRUE(WriteFileAtomic(path, actual).ok());
  } else {
    EXPECT_EQ(actual, *content) << "if this is right, accept it with --update (see the top of this file)";
  }
}

INSTANTIATE_TEST_SUITE_P(All, CoreScriptTest, ::testing::ValuesIn(Scripts()), [](const auto& info) {
  std::string name;
  for (const char c : info.param) name += std::isalnum(static_cast<unsigned char>(c)) != 0 ? c : '_';
  return name;
});

}  // namespace
}  // namespace trainyard::coordinator

int main(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    if (std::string(argv[i]) == "--update") trainyard::coordinator::update = true;
  }
  ::testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
