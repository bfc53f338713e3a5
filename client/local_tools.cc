#include <cstring>
#include <ostream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/file.h"
#include "client/commands.h"

namespace trainyard::client {

const std::vector<std::pair<std::string, std::string>>& LocalCommands() {
  static const auto* const kCommands = new std::vector<std::pair<std::string, std::string>>{
      {"plan", "Memory by purpose, FLOPs and bytes on the wire of a job, without running it"},
      {"data", "Make data sets: trainyard data tokenize"},
      {"generate", "Sample text from a trained model"},
      {"eval", "Loss of a model on a data set"},
      {"prune", "Prune a model without training it: magnitude, Wanda, SparseGPT"},
      {"run", "Run a job on this machine, coordinator and workers included"},
  };
  return *kCommands;
}

bool IsLocalCommand(const std::string& name) {
  for (const auto& [command, description] : LocalCommands()) {
    if (name == command) return true;
  }
  return false;
}

int RunLocal(const std::vector<std::string>& args, const Environment& env) {
  const std::string folder = env.program_path.substr(0, env.program_path.rfind('/'));
  // Installed side by side, or as the build tree has them.
  const std::vector<std::string> candidates = {JoinPath(folder, "trainyard-local"),
                                               JoinPath(folder, "../worker/tools/trainyard-local")};
  for (const std::string& path : candidates) {
    if (!FileExists(path)) continue;
    const int error = env.execute(path, args);
    *env.err << "trainyard: cannot start " << path << ": " << std::strerror(error) << "\n";
    return kExitFailedCall;
  }
  *env.err << "trainyard: '" << args[0] << "' needs the program trainyard-local, which is not at "
           << absl::StrJoin(candidates, " nor at ")
           << ". Install it beside trainyard, or build it: bazel build //worker/tools:trainyard-local\n";
  return kExitFailedCall;
}

}  // namespace trainyard::client
