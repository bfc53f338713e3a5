// The part of NVML's C interface that we use, declared here so that neither the toolkit nor a driver is needed to
// build. Sizes, orders and values are the driver's ABI (public headers and Python bindings of NVML, versions 450 to
// 580).
#pragma once

#include <cstddef>

namespace trainyard::daemon::nvml {

using Return = int;
inline constexpr Return kSuccess = 0;
inline constexpr Return kNotSupported = 3;
inline constexpr Return kInsufficientSize = 7;
inline constexpr Return kDriverNotLoaded = 9;
inline constexpr Return kTimeout = 10;
inline constexpr Return kVersionMismatch = 18;

using Device = struct OpaqueDevice*;
using EventSet = struct OpaqueEventSet*;

inline constexpr unsigned kUuidBytes = 96;
inline constexpr unsigned kNameBytes = 96;
inline constexpr unsigned kVersionBytes = 80;

struct Memory {
  unsigned long long total, free, used;  // `used` has what the driver keeps for itself in it
};
struct MemoryV2 {
  unsigned version;
  unsigned long long total, reserved, free, used;
};
static_assert(sizeof(MemoryV2) == 40);
inline constexpr unsigned kMemoryV2Version = sizeof(MemoryV2) | (2u << 24);

struct ProcessInfo {
  unsigned pid;
  unsigned long long used_bytes;  // all ones: not available
  unsigned gpu_instance, compute_instance;
};
static_assert(sizeof(ProcessInfo) == 24);

inline constexpr unsigned long long kEventXid = 8;
struct EventData {
  Device device;
  unsigned long long type, data;  // data: the XID
  unsigned gpu_instance, compute_instance;
};
static_assert(sizeof(EventData) == 32);

inline constexpr unsigned kFieldRecoveryAction = 230;
struct FieldValue {
  unsigned field, scope;
  long long timestamp, latency_usec;
  unsigned value_type;
  Return result;
  union {
    double f64;
    unsigned u32;
    unsigned long long u64;
    long long i64;
  } value;
};
static_assert(sizeof(FieldValue) == 40 && offsetof(FieldValue, value) == 32);

}  // namespace trainyard::daemon::nvml
