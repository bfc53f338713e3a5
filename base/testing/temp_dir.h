// A fresh folder that is removed with the object.
#pragma once

#include <cstdlib>
#include <string>

#include "base/check.h"
#include "base/file.h"

namespace trainyard {

class TempDir {
 public:
  TempDir() {
    const char* root = std::getenv("TEST_TMPDIR");
    path_ = std::string(root != nullptr ? root : "/tmp") + "/trainyard_XXXXXX";
    TY_CHECK(mkdtemp(path_.data()) != nullptr);
  }
  ~TempDir() { RemoveTree(path_).IgnoreError(); }  // a left-over folder must not fail a test
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;

  const std::string& path() const { return path_; }
  std::string Join(const std::string& name) const { return JoinPath(path_, name); }

 private:
  std::string path_;
};

}  // namespace trainyard
