#include "client/commands.h"
#include "client/follow.h"

namespace trainyard::client {

int RunWatch(const std::string& name, Context& context) {
  const auto job = GetJob(context, name);
  if (!job.ok()) return Fail(context, job.status());
  return ShowJob(context, *job);
}

}  // namespace trainyard::client
