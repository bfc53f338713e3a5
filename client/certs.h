// `trainyard certs init`: the files of mutual TLS for a whole cluster.
#pragma once

#include <functional>

#include "client/context.h"

namespace CLI {
class App;
}

namespace trainyard::client {

// `select` is called with what the flags chose.
void AddCertsCommand(CLI::App& app,
                     const std::function<void(std::function<int(Context&)> run, bool needs_server)>& select);

}  // namespace trainyard::client
