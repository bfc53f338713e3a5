// A program's arguments, for the parser of its flags.
//
// CLI11 2.1 reads "--name=" as "--name" without a value, and takes whatever comes next as the value, be it another
// flag: of `--metrics_listen= --web_listen=:7072` it makes a /metrics on "--web_listen=:7072". So "--name=" becomes
// "--name" and an empty argument here, which means what it says: an empty value. What follows "--" stays as it is.
#pragma once

#include <string>
#include <vector>

namespace trainyard {

std::vector<std::string> SplitEmptyValues(const std::vector<std::string>& arguments);

// The same of what main() was given, as what main() was given. For as long as the object is there.
class Arguments {
 public:
  Arguments(int argc, const char* const* argv);
  Arguments(const Arguments&) = delete;
  Arguments& operator=(const Arguments&) = delete;

  int argc() const { return static_cast<int>(words_.size()); }
  const char* const* argv() const { return pointers_.data(); }

 private:
  const std::vector<std::string> words_;
  std::vector<const char*> pointers_;  // into words_, and a null at the end
};

}  // namespace trainyard
