#include "worker/daemon/gpu/nvml.h"

#include <dlfcn.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/daemon/gpu/nvml_abi.h"

namespace trainyard::daemon {

using nvml::Device;
using nvml::Return;

// Those of the second group came with later drivers; null if the library has none.
struct Nvml::Functions {
  Return (*init)() = nullptr;
  Return (*shutdown)() = nullptr;
  Return (*driver_version)(char*, unsigned) = nullptr;
  Return (*count)(unsigned*) = nullptr;
  Return (*by_index)(unsigned, Device*) = nullptr;
  Return (*by_uuid)(const char*, Device*) = nullptr;
  Return (*uuid)(Device, char*, unsigned) = nullptr;
  Return (*name)(Device, char*, unsigned) = nullptr;
  Return (*memory)(Device, nvml::Memory*) = nullptr;
  Return (*minor_number)(Device, unsigned*) = nullptr;
  Return (*compute_capability)(Device, int*, int*) = nullptr;
  Return (*event_set_create)(nvml::EventSet*) = nullptr;
  Return (*event_set_free)(nvml::EventSet) = nullptr;
  Return (*register_events)(Device, unsigned long long, nvml::EventSet) = nullptr;

  const char* (*error_string)(Return) = nullptr;
  Return (*event_set_wait)(nvml::EventSet, nvml::EventData*, unsigned) = nullptr;
  Return (*memory_v2)(Device, nvml::MemoryV2*) = nullptr;
  Return (*mig_mode)(Device, unsigned*, unsigned*) = nullptr;
  Return (*remapped_rows)(Device, unsigned*, unsigned*, unsigned*, unsigned*) = nullptr;
  Return (*compute_processes)(Device, unsigned*, nvml::ProcessInfo*) = nullptr;
  Return (*field_values)(Device, int, nvml::FieldValue*) = nullptr;
};

namespace {

template <typename Function>
bool Find(void* library, const char* name, Function** function) {
  *function = reinterpret_cast<Function*>(dlsym(library, name));
  return *function != nullptr;
}

std::vector<GpuProcess> ProcessesOf(Return (*ask)(Device, unsigned*, nvml::ProcessInfo*), Device device) {
  if (ask == nullptr) return {};
  unsigned count = 0;
  if (ask(device, &count, nullptr) != nvml::kInsufficientSize) return {};
  std::vector<nvml::ProcessInfo> found(count + 8);  // some may begin meanwhile
  count = static_cast<unsigned>(found.size());
  if (ask(device, &count, found.data()) != nvml::kSuccess) return {};
  std::vector<GpuProcess> processes;
  for (unsigned i = 0; i < std::min<size_t>(count, found.size()); ++i) {
    const bool is_told = found[i].used_bytes != ~0ull;
    processes.push_back({.pid = found[i].pid, .used_bytes = is_told ? static_cast<int64_t>(found[i].used_bytes) : -1});
  }
  return processes;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Nvml>> Nvml::Open(const std::string& library) {
  void* handle = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    const char* error = dlerror();
    return absl::NotFoundError(absl::StrCat("cannot open ", library, " (", error == nullptr ? "no reason given" : error,
                                            "): is NVIDIA's driver installed, and given to this container?"));
  }
  auto functions = std::make_unique<Functions>();
  Functions& f = *functions;
  const char* missing = nullptr;
  const auto need = [&](const char* name, auto** function) {
    if (!Find(handle, name, function) && missing == nullptr) missing = name;
  };
  need("nvmlInit_v2", &f.init);
  need("nvmlShutdown", &f.shutdown);
  need("nvmlSystemGetDriverVersion", &f.driver_version);
  need("nvmlDeviceGetCount_v2", &f.count);
  need("nvmlDeviceGetHandleByIndex_v2", &f.by_index);
  need("nvmlDeviceGetHandleByUUID", &f.by_uuid);
  need("nvmlDeviceGetUUID", &f.uuid);
  need("nvmlDeviceGetName", &f.name);
  need("nvmlDeviceGetMemoryInfo", &f.memory);
  need("nvmlDeviceGetMinorNumber", &f.minor_number);
  need("nvmlDeviceGetCudaComputeCapability", &f.compute_capability);
  need("nvmlEventSetCreate", &f.event_set_create);
  need("nvmlEventSetFree", &f.event_set_free);
  need("nvmlDeviceRegisterEvents", &f.register_events);
  if (missing != nullptr) {
    dlclose(handle);
    return absl::FailedPreconditionError(
        absl::StrCat(library, " has no ", missing, ": not NVIDIA's management library, or one that is too old"));
  }
  Find(handle, "nvmlErrorString", &f.error_string);
  Find(handle, "nvmlEventSetWait_v2", &f.event_set_wait);
  Find(handle, "nvmlDeviceGetMemoryInfo_v2", &f.memory_v2);
  Find(handle, "nvmlDeviceGetMigMode", &f.mig_mode);
  Find(handle, "nvmlDeviceGetRemappedRows", &f.remapped_rows);
  Find(handle, "nvmlDeviceGetComputeRunningProcesses_v3", &f.compute_processes);
  Find(handle, "nvmlDeviceGetFieldValues", &f.field_values);

  if (const Return result = f.init(); result != nvml::kSuccess) {
    const std::string text =
        absl::StrCat(library, ": ", f.error_string == nullptr ? "nvmlInit_v2 failed" : f.error_string(result),
                     " (NVML error ", result, ")");
    dlclose(handle);
    if (result == nvml::kDriverNotLoaded) {
      return absl::FailedPreconditionError(absl::StrCat(text, ": NVIDIA's kernel driver is not loaded on this host"));
    }
    if (result == nvml::kVersionMismatch) {
      return absl::FailedPreconditionError(
          absl::StrCat(text, ": the library is not that of the loaded driver; after an upgrade the host must reboot"));
    }
    return absl::UnavailableError(text);
  }
  std::unique_ptr<Nvml> opened(new Nvml(handle, std::move(functions)));
  char version[nvml::kVersionBytes] = {};
  if (f.driver_version(version, sizeof(version)) == nvml::kSuccess) opened->driver_version_ = version;
  return opened;
}

Nvml::Nvml(void* library, std::unique_ptr<Functions> functions) : library_(library), functions_(std::move(functions)) {}

Nvml::~Nvml() {
  if (events_ != nullptr) functions_->event_set_free(static_cast<nvml::EventSet>(events_));
  functions_->shutdown();
  dlclose(library_);
}

absl::Status Nvml::StatusOf(int result, const char* what) const {
  if (result == nvml::kSuccess) return absl::OkStatus();
  const char* words = functions_->error_string == nullptr ? "refused" : functions_->error_string(result);
  const std::string text = absl::StrCat(what, ": ", words, " (NVML error ", result, ")");
  return result == nvml::kNotSupported ? absl::UnimplementedError(text) : absl::UnavailableError(text);
}

absl::StatusOr<std::vector<GpuIdentity>> Nvml::List() {
  unsigned count = 0;
  TY_RETURN_IF_ERROR(StatusOf(functions_->count(&count), "nvmlDeviceGetCount_v2"));
  std::vector<GpuIdentity> gpus;
  for (unsigned i = 0; i < count; ++i) {
    GpuIdentity& gpu = gpus.emplace_back();
    gpu.index = static_cast<int>(i);
    Device device = nullptr;
    char uuid[nvml::kUuidBytes] = {}, name[nvml::kNameBytes] = {};
    absl::Status status = StatusOf(functions_->by_index(i, &device), "nvmlDeviceGetHandleByIndex_v2");
    if (status.ok()) status = StatusOf(functions_->uuid(device, uuid, sizeof(uuid)), "nvmlDeviceGetUUID");
    gpu.uuid = uuid;
    if (status.ok()) status = StatusOf(functions_->name(device, name, sizeof(name)), "nvmlDeviceGetName");
    gpu.name = name;
    nvml::Memory memory{};
    if (status.ok()) status = StatusOf(functions_->memory(device, &memory), "nvmlDeviceGetMemoryInfo");
    gpu.memory_bytes = static_cast<int64_t>(memory.total);
    if (status.ok()) {
      status = StatusOf(functions_->compute_capability(device, &gpu.compute_major, &gpu.compute_minor),
                        "nvmlDeviceGetCudaComputeCapability");
    }
    if (!status.ok()) {
      gpu.error = std::string(status.message());
      continue;
    }
    unsigned minor_number = 0, mig = 0, pending_mig = 0;
    if (functions_->minor_number(device, &minor_number) == nvml::kSuccess) {
      gpu.minor_number = static_cast<int>(minor_number);
    }
    gpu.is_mig = functions_->mig_mode != nullptr &&
                 functions_->mig_mode(device, &mig, &pending_mig) == nvml::kSuccess && mig != 0;
  }
  return gpus;
}

GpuFacts Nvml::Probe(const std::string& uuid) {
  GpuFacts facts;
  Device device = nullptr;
  absl::Status status = StatusOf(functions_->by_uuid(uuid.c_str(), &device), "nvmlDeviceGetHandleByUUID");
  if (status.ok()) {
    nvml::MemoryV2 memory{};
    memory.version = nvml::kMemoryV2Version;
    if (functions_->memory_v2 != nullptr && functions_->memory_v2(device, &memory) == nvml::kSuccess) {
      facts.total_bytes = static_cast<int64_t>(memory.total);
      facts.used_bytes = static_cast<int64_t>(memory.used);
    } else {
      nvml::Memory old{};
      status = StatusOf(functions_->memory(device, &old), "nvmlDeviceGetMemoryInfo");
      facts.total_bytes = static_cast<int64_t>(old.total);
      facts.used_bytes = static_cast<int64_t>(old.used);
    }
  }
  if (!status.ok()) {
    facts.error = std::string(status.message());
    return facts;
  }
  unsigned correctable = 0, uncorrectable = 0, is_pending = 0, has_failed = 0;
  if (functions_->remapped_rows != nullptr &&
      functions_->remapped_rows(device, &correctable, &uncorrectable, &is_pending, &has_failed) == nvml::kSuccess) {
    facts.row_remap_failed = has_failed != 0;
  }
  nvml::FieldValue recovery{};
  recovery.field = nvml::kFieldRecoveryAction;
  if (functions_->field_values != nullptr && functions_->field_values(device, 1, &recovery) == nvml::kSuccess &&
      recovery.result == nvml::kSuccess) {
    facts.recovery_action = static_cast<int>(recovery.value.u32);
  }
  facts.processes = ProcessesOf(functions_->compute_processes, device);
  return facts;
}

absl::Status Nvml::Listen(const std::string& uuid) {
  if (functions_->event_set_wait == nullptr) return absl::UnimplementedError("the library has no nvmlEventSetWait_v2");
  if (events_ == nullptr) {
    nvml::EventSet set = nullptr;
    TY_RETURN_IF_ERROR(StatusOf(functions_->event_set_create(&set), "nvmlEventSetCreate"));
    events_ = set;
  }
  Device device = nullptr;
  TY_RETURN_IF_ERROR(StatusOf(functions_->by_uuid(uuid.c_str(), &device), "nvmlDeviceGetHandleByUUID"));
  return StatusOf(functions_->register_events(device, nvml::kEventXid, static_cast<nvml::EventSet>(events_)),
                  "nvmlDeviceRegisterEvents");
}

absl::StatusOr<XidEvent> Nvml::WaitForXid(absl::Duration timeout) {
  if (events_ == nullptr) return absl::UnavailableError("no GPU is listened to");
  nvml::EventData data{};
  const auto wait_ms = static_cast<unsigned>(absl::ToInt64Milliseconds(timeout));
  const Return result = functions_->event_set_wait(static_cast<nvml::EventSet>(events_), &data, wait_ms);
  if (result == nvml::kTimeout) return absl::NotFoundError("no XID came");
  TY_RETURN_IF_ERROR(StatusOf(result, "nvmlEventSetWait_v2"));
  if (data.type != nvml::kEventXid) return absl::NotFoundError("another event");
  char uuid[nvml::kUuidBytes] = {};
  TY_RETURN_IF_ERROR(StatusOf(functions_->uuid(data.device, uuid, sizeof(uuid)), "nvmlDeviceGetUUID"));
  return XidEvent{.uuid = uuid, .xid = static_cast<int>(data.data)};
}

}  // namespace trainyard::daemon
