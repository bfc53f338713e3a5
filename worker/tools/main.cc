// trainyard-local: the commands that touch models and data on this machine. The CLI `trainyard`, which links no
// kernels, starts this program for them.
#include <CLI/CLI.hpp>
#include <string>

#include "base/arguments.h"
#include "base/log.h"
#include "base/version.h"
#include "worker/tools/commands.h"
#include "worker/tools/data_command.h"

int main(int argc, char** argv) {
  trainyard::InitLog("trainyard-local", trainyard::LogLevel::kWarning);
  int exit_code = 0;
  CLI::App app("Local tools of Trainyard", "trainyard-local");
  app.set_version_flag("--version", std::string("trainyard-local ") + trainyard::kVersion);
  app.require_subcommand(1);
  trainyard::AddDataCommand(app, &exit_code);
  trainyard::tools::AddPlanCommand(app, &exit_code);
  trainyard::tools::AddGenerateCommand(app, &exit_code);
  trainyard::tools::AddEvalCommand(app, &exit_code);
  trainyard::tools::AddPruneCommand(app, &exit_code);
  trainyard::tools::AddRunCommand(app, &exit_code);
  try {
    const trainyard::Arguments arguments(argc, argv);
    app.parse(arguments.argc(), arguments.argv());
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  return exit_code;
}
