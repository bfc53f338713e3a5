#include "base/version.h"

#include <ostream>

#include "client/commands.h"

namespace trainyard::client {

int RunVersion(bool client_only, Context& context) {
  context.out() << "client " << kVersion << "\n";
  if (client_only) return kExitOk;
  const auto server = context.jobs->GetServerInfo();
  if (!server.ok()) {
    // The own version is an answer; that nobody is there is not a failure of this command.
    context.err() << "coordinator at " << context.settings.address << ": no answer (" << server.status().message()
                  << ")\n";
    return kExitOk;
  }
  context.out() << "coordinator " << server->version() << " at " << context.settings.address << ", up since "
                << TimeText(server->start_time()) << "\n";
  return kExitOk;
}

}  // namespace trainyard::client
