// The program `trainyard`: flags to commands.
#pragma once

#include <string>
#include <vector>

#include "client/context.h"

namespace trainyard::client {

// `args` without the program's name. Returns the exit code (context.h).
int RunCli(const std::vector<std::string>& args, Environment env);

}  // namespace trainyard::client
