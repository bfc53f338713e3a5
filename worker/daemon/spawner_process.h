// The inside of the helper process that Spawner forks, and what travels between the two.
#pragma once

#include <cstddef>
#include <cstdint>

namespace trainyard::daemon {

inline constexpr size_t kMaxPassedFds = 4;

// Followed, for kSpawn, by NUL-terminated words: the changes to the environment, then the command; descriptors come
// along. Both ends are one program, so plain structs do.
struct SpawnerOrder {
  enum class Kind : uint32_t { kSpawn, kSignal };
  Kind kind = Kind::kSpawn;
  uint32_t id = 0;
  int32_t signal = 0;
  uint32_t environment_count = 0;
};

// Serves orders from `socket` until the other end closes; then ends all runners and exits. For a freshly forked process
// with one thread.
[[noreturn]] void RunSpawnerProcess(int socket);

}  // namespace trainyard::daemon
