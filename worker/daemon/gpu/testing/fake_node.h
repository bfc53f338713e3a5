// A host's GPUs as libfake_nvml.so tells them: the file that it reads, rewritten while it is used.
#pragma once

#include <unistd.h>

#include <cstdlib>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/file.h"
#include "base/testing/status_matchers.h"

namespace trainyard::daemon {

class FakeNode {
 public:
  // `path`: of the file. Before the library is opened, and before other threads read the environment.
  explicit FakeNode(std::string path) : path_(std::move(path)) {
    setenv("FAKE_NVML", path_.c_str(), 1);
    Say("");
  }

  // The lines of testing/fake_nvml.cc.
  void Say(const std::string& lines) { TY_CHECK_OK(WriteFileAtomic(path_, lines)); }

  // In the runfiles of a test that has it in `data`.
  static std::string Library() {
    char path[4096];
    TY_CHECK(getcwd(path, sizeof(path)) != nullptr);
    return absl::StrCat(path, "/worker/daemon/gpu/libfake_nvml.so");
  }

 private:
  const std::string path_;
};

}  // namespace trainyard::daemon
