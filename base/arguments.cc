#include "base/arguments.h"

namespace trainyard {

std::vector<std::string> SplitEmptyValues(const std::vector<std::string>& arguments) {
  std::vector<std::string> split;
  bool are_flags = true;
  for (const std::string& argument : arguments) {
    if (argument == "--") are_flags = false;
    const bool has_empty_value = are_flags && argument.size() > 3 && argument.compare(0, 2, "--") == 0 &&
                                 argument.find('=') == argument.size() - 1;
    split.push_back(has_empty_value ? argument.substr(0, argument.size() - 1) : argument);
    if (has_empty_value) split.emplace_back();
  }
  return split;
}

Arguments::Arguments(int argc, const char* const* argv) : words_(SplitEmptyValues({argv, argv + argc})) {
  for (const std::string& word : words_) pointers_.push_back(word.c_str());
  pointers_.push_back(nullptr);
}

}  // namespace trainyard
