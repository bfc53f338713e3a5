// A stand-in for NVIDIA's management library, opened by the same dlopen as the real one. It answers from a text file,
// named by the environment variable FAKE_NVML at nvmlInit_v2, which tests rewrite (atomically) while it is used. Lines:
//
//   init CODE                   what nvmlInit_v2 returns
//   gpu UUID [KEY=VALUE ...]    in the driver's order; keys: name (with _ for blanks), memory, used, reserved (bytes),
//                               cc (as 9.0), minor, remap_failed, recovery, mig, pid (one process with all that is
//                               used), error (what every call about it returns)
//   xid NUMBER UUID XID         an event, told once: to those who wait with a smaller NUMBER behind them
//   no_events                   GPUs cannot be listened to
//   hang                        every probe blocks until the line has gone
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <mutex>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "worker/daemon/gpu/nvml_abi.h"

namespace {

using trainyard::daemon::nvml::Device;
using trainyard::daemon::nvml::EventData;
using trainyard::daemon::nvml::EventSet;
using trainyard::daemon::nvml::FieldValue;
using trainyard::daemon::nvml::Memory;
using trainyard::daemon::nvml::MemoryV2;
using trainyard::daemon::nvml::ProcessInfo;
using trainyard::daemon::nvml::Return;

constexpr Return kInvalidArgument = 2;
constexpr Return kNotFound = 6;

struct Gpu {
  std::string uuid;
  std::map<std::string, std::string> values;

  long long Number(const char* key, long long otherwise) const {
    const auto found = values.find(key);
    return found == values.end() ? otherwise : std::atoll(found->second.c_str());
  }
  std::string Text(const char* key, const char* otherwise) const {
    const auto found = values.find(key);
    return found == values.end() ? otherwise : found->second;
  }
  Return error() const { return static_cast<Return>(Number("error", 0)); }
};

struct Xid {
  int number = 0;
  std::string uuid;
  int xid = 0;
};

struct Node {
  Return init = 0;
  std::vector<Gpu> gpus;
  std::vector<Xid> xids;
  bool has_events = true;
  bool hangs = false;
};

std::string path;
std::mutex mutex;
std::map<std::string, Device> handles;  // by UUID: numbers that are no addresses
std::set<std::string> listened;
int last_told = 0;

Node Read() {
  Node node;
  std::ifstream file(path);
  std::string line;
  while (std::getline(file, line)) {
    std::istringstream words(line);
    std::string kind, word;
    words >> kind;
    if (kind == "init") {
      words >> node.init;
    } else if (kind == "gpu") {
      Gpu& gpu = node.gpus.emplace_back();
      words >> gpu.uuid;
      while (words >> word) gpu.values[word.substr(0, word.find('='))] = word.substr(word.find('=') + 1);
    } else if (kind == "xid") {
      Xid& xid = node.xids.emplace_back();
      words >> xid.number >> xid.uuid >> xid.xid;
    } else if (kind == "no_events") {
      node.has_events = false;
    } else if (kind == "hang") {
      node.hangs = true;
    }
  }
  return node;
}

Device HandleOf(const std::string& uuid) {
  std::lock_guard<std::mutex> lock(mutex);
  const auto [found, is_new] = handles.emplace(uuid, nullptr);
  if (is_new) found->second = reinterpret_cast<Device>(handles.size());
  return found->second;
}

// `use` is called with the GPU that the handle names, if it is there and answers.
template <typename Use>
Return With(Device device, const Use& use) {
  std::string uuid;
  {
    std::lock_guard<std::mutex> lock(mutex);
    for (const auto& [name, handle] : handles) {
      if (handle == device) uuid = name;
    }
  }
  for (const Gpu& gpu : Read().gpus) {
    if (gpu.uuid != uuid) continue;
    return gpu.error() != 0 ? gpu.error() : use(gpu);
  }
  return kNotFound;
}

Return Put(const std::string& text, char* out, unsigned size) {
  if (text.size() >= size) return trainyard::daemon::nvml::kInsufficientSize;
  std::memcpy(out, text.c_str(), text.size() + 1);
  return 0;
}

}  // namespace

extern "C" {

Return nvmlInit_v2() {
  const char* named = std::getenv("FAKE_NVML");
  path = named == nullptr ? "" : named;
  last_told = 0;
  listened.clear();
  return Read().init;
}
Return nvmlShutdown() {
  return 0;
}
const char* nvmlErrorString(Return code) {
  switch (code) {
    case 3:
      return "Not Supported";
    case 6:
      return "Not Found";
    case 9:
      return "Driver Not Loaded";
    case 15:
      return "GPU is lost";
    default:
      return "Some Error";
  }
}
Return nvmlSystemGetDriverVersion(char* version, unsigned size) {
  return Put("fake-1.0", version, size);
}
Return nvmlDeviceGetCount_v2(unsigned* count) {
  *count = static_cast<unsigned>(Read().gpus.size());
  return 0;
}
Return nvmlDeviceGetHandleByIndex_v2(unsigned index, Device* device) {
  const Node node = Read();
  if (index >= node.gpus.size()) return kInvalidArgument;
  if (node.gpus[index].error() != 0) return node.gpus[index].error();
  *device = HandleOf(node.gpus[index].uuid);
  return 0;
}
Return nvmlDeviceGetHandleByUUID(const char* uuid, Device* device) {
  while (Read().hangs) usleep(1000);
  for (const Gpu& gpu : Read().gpus) {
    if (gpu.uuid != uuid) continue;
    if (gpu.error() != 0) return gpu.error();
    *device = HandleOf(uuid);
    return 0;
  }
  return kNotFound;
}
Return nvmlDeviceGetUUID(Device device, char* uuid, unsigned size) {
  // Of one that is lost too: its events name it.
  std::lock_guard<std::mutex> lock(mutex);
  for (const auto& [name, handle] : handles) {
    if (handle == device) return Put(name, uuid, size);
  }
  return kInvalidArgument;
}
Return nvmlDeviceGetName(Device device, char* out, unsigned size) {
  return With(device, [&](const Gpu& gpu) {
    std::string name = gpu.Text("name", "Fake_GPU");
    for (char& c : name) c = c == '_' ? ' ' : c;
    return Put(name, out, size);
  });
}
Return nvmlDeviceGetMemoryInfo(Device device, Memory* memory) {
  return With(device, [&](const Gpu& gpu) {
    memory->total = static_cast<unsigned long long>(gpu.Number("memory", 1 << 30));
    memory->used = static_cast<unsigned long long>(gpu.Number("used", 0) + gpu.Number("reserved", 0));
    memory->free = memory->total - memory->used;
    return 0;
  });
}
Return nvmlDeviceGetMemoryInfo_v2(Device device, MemoryV2* memory) {
  if (memory->version != trainyard::daemon::nvml::kMemoryV2Version) return kInvalidArgument;
  return With(device, [&](const Gpu& gpu) {
    memory->total = static_cast<unsigned long long>(gpu.Number("memory", 1 << 30));
    memory->used = static_cast<unsigned long long>(gpu.Number("used", 0));
    memory->reserved = static_cast<unsigned long long>(gpu.Number("reserved", 0));
    memory->free = memory->total - memory->used - memory->reserved;
    return 0;
  });
}
Return nvmlDeviceGetMinorNumber(Device device, unsigned* number) {
  return With(device, [&](const Gpu& gpu) {
    *number = static_cast<unsigned>(gpu.Number("minor", 0));
    return 0;
  });
}
Return nvmlDeviceGetCudaComputeCapability(Device device, int* major, int* minor) {
  return With(device, [&](const Gpu& gpu) {
    return std::sscanf(gpu.Text("cc", "9.0").c_str(), "%d.%d", major, minor) == 2 ? 0 : kInvalidArgument;
  });
}
Return nvmlDeviceGetMigMode(Device device, unsigned* current, unsigned* pending) {
  return With(device, [&](const Gpu& gpu) {
    *current = *pending = static_cast<unsigned>(gpu.Number("mig", 0));
    return 0;
  });
}
Return nvmlDeviceGetRemappedRows(Device device, unsigned* correctable, unsigned* uncorrectable, unsigned* pending,
                                 unsigned* failed) {
  return With(device, [&](const Gpu& gpu) {
    *correctable = *uncorrectable = *pending = 0;
    *failed = static_cast<unsigned>(gpu.Number("remap_failed", 0));
    return 0;
  });
}
Return nvmlDeviceGetFieldValues(Device device, int count, FieldValue* values) {
  return With(device, [&](const Gpu& gpu) {
    for (int i = 0; i < count; ++i) {
      const bool known =
          values[i].field == trainyard::daemon::nvml::kFieldRecoveryAction && gpu.values.count("recovery");
      values[i].result = known ? 0 : trainyard::daemon::nvml::kNotSupported;
      values[i].value.u64 = 0;
      values[i].value.u32 = static_cast<unsigned>(gpu.Number("recovery", 0));
    }
    return 0;
  });
}
Return nvmlDeviceGetComputeRunningProcesses_v3(Device device, unsigned* count, ProcessInfo* processes) {
  return With(device, [&](const Gpu& gpu) {
    const unsigned space = *count;
    *count = gpu.values.count("pid") > 0 ? 1 : 0;
    if (space < *count) return trainyard::daemon::nvml::kInsufficientSize;
    if (*count == 1) {
      processes[0] = {};
      processes[0].pid = static_cast<unsigned>(gpu.Number("pid", 0));
      processes[0].used_bytes = static_cast<unsigned long long>(gpu.Number("used", 0));
    }
    return trainyard::daemon::nvml::kSuccess;
  });
}
Return nvmlEventSetCreate(EventSet* set) {
  *set = reinterpret_cast<EventSet>(1);
  return 0;
}
Return nvmlEventSetFree(EventSet) {
  return 0;
}
Return nvmlDeviceRegisterEvents(Device device, unsigned long long types, EventSet) {
  if (!Read().has_events) return trainyard::daemon::nvml::kNotSupported;
  if (types != trainyard::daemon::nvml::kEventXid) return kInvalidArgument;
  return With(device, [&](const Gpu& gpu) {
    std::lock_guard<std::mutex> lock(mutex);
    listened.insert(gpu.uuid);
    return 0;
  });
}
Return nvmlEventSetWait_v2(EventSet, EventData* data, unsigned timeout_ms) {
  for (unsigned waited = 0;; waited += 2) {
    for (const Xid& xid : Read().xids) {
      if (xid.number <= last_told || listened.count(xid.uuid) == 0) continue;
      last_told = xid.number;
      *data = {};
      data->device = HandleOf(xid.uuid);
      data->type = trainyard::daemon::nvml::kEventXid;
      data->data = static_cast<unsigned long long>(xid.xid);
      return 0;
    }
    if (waited >= timeout_ms) return trainyard::daemon::nvml::kTimeout;
    usleep(2000);
  }
}

}  // extern "C"
