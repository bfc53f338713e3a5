#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdlib>
#include <iostream>

#include "client/cli.h"
#include "client/commands.h"

namespace trainyard::client {
namespace {

int Execute(const std::string& path, const std::vector<std::string>& args) {
  std::vector<std::string> words = {path};
  words.insert(words.end(), args.begin(), args.end());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  std::cout.flush();
  execv(path.c_str(), argv.data());
  return errno;
}

std::string OwnPath() {
  char path[PATH_MAX];
  const ssize_t length = readlink("/proc/self/exe", path, sizeof(path));
  return length > 0 ? std::string(path, static_cast<size_t>(length)) : "trainyard";
}

int Columns() {
  winsize size = {};
  if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
  return 80;
}

int Main(int argc, char** argv) {
  static Interrupt interrupt;
  const std::vector<std::string> args(argv + 1, argv + argc);
  // A local tool inherits the usual signals.
  if (args.empty() || !IsLocalCommand(args[0])) interrupt.CatchSignals();
  Environment env;
  env.out = &std::cout;
  env.err = &std::cerr;
  env.get_env = [](const char* name) -> const char* { return std::getenv(name); };
  env.is_terminal = isatty(STDOUT_FILENO) == 1;
  env.columns = Columns();
  env.interrupt = &interrupt;
  env.clock = RealClock();
  env.program_path = OwnPath();
  env.execute = Execute;
  return RunCli(args, env);
}

}  // namespace
}  // namespace trainyard::client

int main(int argc, char** argv) {
  return trainyard::client::Main(argc, argv);
}
