#include <ostream>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "client/commands.h"
#include "client/duration_text.h"

namespace trainyard::client {
namespace {

std::string SlotText(const v1::SlotInfo& slot) {
  std::string text = absl::AsciiStrToLower(absl::StripPrefix(v1::SlotState_Name(slot.state()), "SLOT_STATE_"));
  if (!slot.job_uid().empty()) {
    absl::StrAppend(&text, "(", slot.job_name().empty() ? slot.job_uid() : slot.job_name(), " rank ", slot.rank(), ")");
  }
  if (slot.has_gpu()) {
    const v1::GpuDevice& gpu = slot.gpu();
    absl::StrAppend(&text, " [GPU ", gpu.index());
    if (!gpu.uuid().empty()) {
      absl::StrAppend(&text, " ", gpu.name(), ", ", gpu.memory_bytes() >> 30, " GiB, compute capability ",
                      gpu.compute_capability(), ", ", gpu.uuid());
    }
    absl::StrAppend(&text, "]");
  }
  if (!slot.health_message().empty()) absl::StrAppend(&text, ": ", slot.health_message());
  return text;
}

}  // namespace

int RunWorkers(Context& context) {
  const auto workers = context.jobs->ListWorkers();
  if (!workers.ok()) return Fail(context, workers.status());
  const OutputFormat format = context.settings.output;
  if (context.quiet || format == OutputFormat::kName) {
    for (const auto& worker : workers->workers()) context.out() << worker.worker_id() << "\n";
    return kExitOk;
  }
  if (format == OutputFormat::kJsonl) {
    for (const auto& worker : workers->workers()) PrintAsData(context, worker);
    return kExitOk;
  }
  if (PrintAsData(context, *workers)) return kExitOk;
  if (workers->workers().empty()) {
    context.err() << "No workers. To start one: trainyard-worker --coordinator " << context.settings.address << "\n";
    return kExitOk;
  }
  const bool wide = format == OutputFormat::kWide;
  std::vector<std::vector<std::string>> rows = {
      {"WORKER", "HOST", "STATE", "FREE", "SLOTS", "GPUS", "DRIVERS", "HEARTBEAT"}};
  if (wide) rows[0].insert(rows[0].end(), {"VERSION", "ADDRESS", "DETAILS"});
  for (const auto& worker : workers->workers()) {
    // FREE and SLOTS are of CPUs. Slots for searches and the like run no training, so they are counted by themselves.
    int free = 0, total = 0, free_gpus = 0, gpus = 0, unhealthy_gpus = 0, drivers = 0, busy_drivers = 0;
    std::string details;
    for (const auto& slot : worker.slots()) {
      if (slot.type() == v1::SLOT_TYPE_DRIVER) {
        ++drivers;
        busy_drivers += slot.state() == v1::SLOT_STATE_FREE ? 0 : 1;
        if (slot.state() == v1::SLOT_STATE_FREE) continue;
      } else if (slot.type() == v1::SLOT_TYPE_GPU) {
        ++gpus;
        free_gpus += slot.state() == v1::SLOT_STATE_FREE ? 1 : 0;
        unhealthy_gpus += slot.state() == v1::SLOT_STATE_UNHEALTHY ? 1 : 0;
      } else {
        ++total;
        free += slot.state() == v1::SLOT_STATE_FREE ? 1 : 0;
      }
      absl::StrAppend(&details, details.empty() ? "" : ", ", slot.index(), ":", SlotText(slot));
    }
    const std::string state =
        absl::AsciiStrToLower(absl::StripPrefix(v1::WorkerState_Name(worker.state()), "WORKER_STATE_"));
    const std::string heartbeat =
        worker.has_last_heartbeat_time()
            ? absl::StrCat(RoughDuration(context.env.clock->Now() - ToTime(worker.last_heartbeat_time())), " ago")
            : "-";
    // Free ones of all; details, with reasons, are in the wide form.
    std::string gpu_text = gpus == 0 ? "-" : absl::StrCat(free_gpus, "/", gpus);
    if (unhealthy_gpus > 0) absl::StrAppend(&gpu_text, " (", unhealthy_gpus, " unhealthy)");
    rows.push_back({worker.worker_id(), worker.host(), state, absl::StrCat(free), absl::StrCat(total), gpu_text,
                    drivers == 0 ? "-" : absl::StrCat(busy_drivers, "/", drivers), heartbeat});
    if (wide) rows.back().insert(rows.back().end(), {worker.version(), worker.address(), details});
  }
  context.out() << Table(rows);
  return kExitOk;
}

int RunForgetWorkers(const std::vector<std::string>& ids, Context& context) {
  for (const std::string& id : ids) {
    v1::ForgetWorkerRequest request;
    request.set_worker_id(id);
    const auto answer = context.jobs->ForgetWorker(request);
    if (!answer.ok()) return Fail(context, answer.status());
    context.out() << (context.quiet ? "" : "worker ") << id << (context.quiet ? "" : " forgotten") << "\n";
  }
  return kExitOk;
}

}  // namespace trainyard::client
