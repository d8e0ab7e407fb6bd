// libnvidia-ml, opened at run time. Knows no JavaScript.

#ifndef LAZYGRAPH_NATIVE_NVML_H_
#define LAZYGRAPH_NATIVE_NVML_H_

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "nvml_abi.h"

namespace gpu {

// What went wrong, in the words that TypeScript maps to codes and remedies.
enum class Problem {
  kNotFound,         // no library under that name
  kUnusable,         // a library, but not NVML
  kDriverNotLoaded,  // the library without its kernel module
  kVersionMismatch,  // library and kernel module of different drivers
  kNoPermission,
  kInitFailed,
  kCallFailed,
  kGpuLost,
  kUnknownDevice,
};

// The stable name of a problem, such as "NVML_NOT_FOUND".
const char* problem_name(Problem problem);

class NvmlError : public std::runtime_error {
 public:
  NvmlError(Problem problem, nvml::Result result, const std::string& message)
      : std::runtime_error(message), problem_(problem), result_(result) {}

  Problem problem() const { return problem_; }
  // NVML's own number, 0 where the library was never reached.
  nvml::Result result() const { return result_; }

 private:
  Problem problem_;
  nvml::Result result_;
};

// One reading of a device's memory, in bytes. `reserved` is what the driver keeps for itself and
// is unknown on drivers before 510, which count it as used.
struct Memory {
  std::uint64_t total = 0;
  std::uint64_t free = 0;
  std::uint64_t used = 0;
  std::optional<std::uint64_t> reserved;
};

struct Process {
  unsigned pid = 0;
  bool graphics = false;
  std::optional<std::uint64_t> used_bytes;
};

enum class Mig {
  kOff,
  kPartitioned,  // a whole GPU that is divided: its instances do the work
  kInstance,     // one of the instances
};

struct Fault {
  Problem problem;
  nvml::Result result;
  std::string message;
};

// Everything about one device. A device that answers with an error keeps its place in the list
// and says so in `fault`; the other fields then hold what was read before it.
struct Device {
  unsigned index = 0;
  std::string uuid;
  std::string name;
  Mig mig = Mig::kOff;
  std::string parent_uuid;  // of a MIG instance
  std::optional<int> compute_capability_major;
  std::optional<int> compute_capability_minor;
  std::optional<Memory> memory;
  std::optional<std::vector<Process>> processes;
  std::optional<Fault> fault;
};

struct Symbols;

// NVML between its init and its shutdown. Safe to call from several threads.
class Nvml {
 public:
  // Opens the library and initialises it, or throws NvmlError. Takes milliseconds, or seconds on
  // a large host without a persistence daemon.
  static std::shared_ptr<Nvml> open(const std::string& path);

  ~Nvml();
  Nvml(const Nvml&) = delete;
  Nvml& operator=(const Nvml&) = delete;

  // Versions, where the driver tells them. CUDA's is 1000 x major + 10 x minor.
  std::optional<std::string> driver_version() const;
  std::optional<int> cuda_version() const;

  // All devices with memory and processes. Throws only where not even counting works.
  std::vector<Device> devices();

  // The memory of one GPU or MIG instance.
  Memory read(const std::string& uuid);

 private:
  class Library;

  Nvml(std::unique_ptr<Library> library, std::unique_ptr<Symbols> symbols);

  nvml::Device handle_of(const std::string& uuid);
  Memory read_handle(nvml::Device handle) const;
  void describe(nvml::Device handle, Device* device) const;
  void add_instances(nvml::Device parent, const Device& whole, std::vector<Device>* out) const;
  std::vector<Process> processes_of(nvml::Device handle) const;
  [[noreturn]] void fail(const char* call, nvml::Result result) const;
  void check(const char* call, nvml::Result result) const;

  std::unique_ptr<Library> library_;
  std::unique_ptr<Symbols> symbols_;
  // Handles by UUID, so that a reading costs one call. Dropped when a device is lost.
  std::mutex mutex_;
  std::map<std::string, nvml::Device> handles_;
};

}  // namespace gpu

#endif  // LAZYGRAPH_NATIVE_NVML_H_
