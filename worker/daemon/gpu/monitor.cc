#include "worker/daemon/gpu/monitor.h"

#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mutex.h"

namespace trainyard::daemon {
namespace {

// How long the thread may not notice a request, since it waits for XIDs meanwhile.
constexpr absl::Duration kXidWait = absl::Milliseconds(100);
// A broken GPU may tell without end.
constexpr int kMostXidsAtOnce = 64;
constexpr absl::Duration kPatience = absl::Seconds(2);

}  // namespace

struct GpuMonitor::State {
  std::unique_ptr<Nvml> nvml;  // the thread's
  std::vector<GpuIdentity> gpus;
  Handlers handlers;
  bool can_listen = false;

  Mutex mutex;
  CondVar changed;
  uint64_t asked ABSL_GUARDED_BY(mutex) = 0;  // tickets
  uint64_t answered ABSL_GUARDED_BY(mutex) = 0;
  bool is_stopping ABSL_GUARDED_BY(mutex) = false;
  bool has_ended ABSL_GUARDED_BY(mutex) = false;
};

std::vector<GpuFacts> ProbeAll(Nvml& nvml, const std::vector<GpuIdentity>& gpus) {
  std::vector<GpuFacts> facts;
  for (const GpuIdentity& gpu : gpus) {
    if (gpu.uuid.empty()) {
      facts.emplace_back().error = gpu.error;
    } else {
      facts.push_back(nvml.Probe(gpu.uuid));
    }
  }
  return facts;
}

std::unique_ptr<GpuMonitor> GpuMonitor::Start(std::unique_ptr<Nvml> nvml, std::vector<GpuIdentity> gpus,
                                              Handlers handlers) {
  auto state = std::make_shared<State>();
  for (const GpuIdentity& gpu : gpus) {
    if (gpu.uuid.empty()) continue;
    const absl::Status listening = nvml->Listen(gpu.uuid);
    state->can_listen |= listening.ok();
    if (!listening.ok())
      LogWarning("no XIDs of GPU ", gpu.index, " (", gpu.uuid, ") will be seen: ", listening.message());
  }
  state->nvml = std::move(nvml);
  state->gpus = std::move(gpus);
  state->handlers = std::move(handlers);
  std::thread([state] { Loop(state); }).detach();
  return std::unique_ptr<GpuMonitor>(new GpuMonitor(std::move(state)));
}

GpuMonitor::~GpuMonitor() {
  const absl::Duration deadline = RealClock()->Monotonic() + kPatience;
  MutexLock lock(&state_->mutex);
  state_->is_stopping = true;
  state_->changed.NotifyAll();
  while (!state_->has_ended) {
    const absl::Duration left = deadline - RealClock()->Monotonic();
    if (left <= absl::ZeroDuration()) {
      LogWarning("NVIDIA's driver does not answer; leaving without it");
      return;
    }
    state_->changed.WaitFor(&state_->mutex, left);
  }
}

uint64_t GpuMonitor::Probe() {
  MutexLock lock(&state_->mutex);
  // A round that has begun may have looked at a GPU already, so a new ticket is needed even while one is open.
  const uint64_t ticket = ++state_->asked;
  state_->changed.NotifyAll();
  return ticket;
}

void GpuMonitor::Loop(const std::shared_ptr<State>& state) {
  while (true) {
    uint64_t ticket = 0;
    {
      MutexLock lock(&state->mutex);
      if (!state->can_listen && !state->is_stopping && state->asked == state->answered) {
        state->changed.WaitFor(&state->mutex, absl::Seconds(1));
      }
      if (state->is_stopping) break;
      if (state->asked != state->answered) ticket = state->asked;
    }
    // Everything that waits, then the probes: what is blamed on a GPU must be known before it is found free.
    absl::StatusOr<XidEvent> event = absl::NotFoundError("");
    if (state->can_listen) {
      int told = 0;
      do {
        event = state->nvml->WaitForXid(ticket == 0 ? kXidWait : absl::ZeroDuration());
        if (event.ok()) {
          MutexLock lock(&state->mutex);  // held over the handler, so that none runs after the destructor
          if (state->is_stopping) break;
          state->handlers.on_xid(*event);
        }
      } while (event.ok() && ++told < kMostXidsAtOnce);
    }
    if (ticket == 0) {
      if (!event.ok() && !absl::IsNotFound(event.status())) {
        // Such as a GPU that is lost, which the probes tell too. Not at full speed.
        MutexLock lock(&state->mutex);
        if (!state->is_stopping) state->changed.WaitFor(&state->mutex, absl::Seconds(1));
      }
      continue;
    }
    GpuSnapshot snapshot{.ticket = ticket, .gpus = ProbeAll(*state->nvml, state->gpus)};
    MutexLock lock(&state->mutex);
    state->answered = ticket;
    if (!state->is_stopping) state->handlers.on_snapshot(std::move(snapshot));
  }
  state->nvml.reset();
  MutexLock lock(&state->mutex);
  state->has_ended = true;
  state->changed.NotifyAll();
}

}  // namespace trainyard::daemon
