// The part of NVIDIA's management library that this addon uses, declared here so that neither
// CUDA nor a driver has to be installed to build it. Layouts follow nvml.h of CUDA 12.

#ifndef LAZYGRAPH_NATIVE_NVML_ABI_H_
#define LAZYGRAPH_NATIVE_NVML_ABI_H_

#include <cstdint>

namespace gpu::nvml {

using Device = struct OpaqueDevice*;

// A plain integer, because newer drivers return values that no list of ours could name.
using Result = int;

inline constexpr Result kSuccess = 0;
inline constexpr Result kUninitialized = 1;
inline constexpr Result kInvalidArgument = 2;
inline constexpr Result kNotSupported = 3;
inline constexpr Result kNoPermission = 4;
inline constexpr Result kNotFound = 6;
inline constexpr Result kInsufficientSize = 7;
inline constexpr Result kDriverNotLoaded = 9;
inline constexpr Result kFunctionNotFound = 13;
inline constexpr Result kGpuIsLost = 15;
inline constexpr Result kResetRequired = 16;
inline constexpr Result kLibRmVersionMismatch = 18;
inline constexpr Result kArgumentVersionMismatch = 25;
inline constexpr Result kGpuNotFound = 28;

inline constexpr unsigned kUuidBytes = 96;
inline constexpr unsigned kNameBytes = 96;
inline constexpr unsigned kVersionBytes = 80;

// What NVML writes where a process' use is not known (Windows, or no permission).
inline constexpr std::uint64_t kValueNotAvailable = ~std::uint64_t{0};

// nvmlMemory_t: `used` includes what the driver reserves.
struct MemoryV1 {
  std::uint64_t total;
  std::uint64_t free;
  std::uint64_t used;
};

// nvmlMemory_v2_t: total = reserved + free + used.
struct MemoryV2 {
  unsigned version;
  std::uint64_t total;
  std::uint64_t reserved;
  std::uint64_t free;
  std::uint64_t used;
};
static_assert(sizeof(MemoryV2) == 40);
inline constexpr unsigned kMemoryV2Version = sizeof(MemoryV2) | (2u << 24);

// nvmlProcessInfo_v2_t, which the _v2 and _v3 calls share.
struct ProcessInfo {
  unsigned pid;
  std::uint64_t used_gpu_memory;
  unsigned gpu_instance_id;
  unsigned compute_instance_id;
};
static_assert(sizeof(ProcessInfo) == 24);

}  // namespace gpu::nvml

#endif  // LAZYGRAPH_NATIVE_NVML_ABI_H_
