// `data tokenize`, `data samples`, `data inspect`, `data encode` and `data decode`: from text to token shards, and a
// look at both.
#pragma once

namespace CLI {
class App;
}

namespace trainyard {

// Adds the command to `app`. Parsing a line with it runs it: results go to stdout, progress and errors to stderr, and
// *exit_code becomes that of CP-73: 0 done, 1 failed, 2 the request cannot be, 3 not found, 4 denied. Borrows exit_code
// until the parse is over.
void AddDataCommand(CLI::App& app, int* exit_code);

}  // namespace trainyard
