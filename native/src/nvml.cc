#include "nvml.h"

#include <dlfcn.h>

#include <array>
#include <utility>

namespace gpu {

namespace {

// Processes may start between two calls; after so many tries the driver is broken.
constexpr int kProcessTries = 4;
constexpr unsigned kProcessesMax = 4096;
constexpr unsigned kDevicesMax = 1024;

Problem problem_of_init(nvml::Result result) {
  switch (result) {
    case nvml::kDriverNotLoaded:
      return Problem::kDriverNotLoaded;
    case nvml::kLibRmVersionMismatch:
      return Problem::kVersionMismatch;
    case nvml::kNoPermission:
      return Problem::kNoPermission;
    default:
      return Problem::kInitFailed;
  }
}

Problem problem_of_call(nvml::Result result) {
  switch (result) {
    case nvml::kGpuIsLost:
    case nvml::kResetRequired:
      return Problem::kGpuLost;
    case nvml::kNoPermission:
      return Problem::kNoPermission;
    default:
      return Problem::kCallFailed;
  }
}

bool names_no_device(nvml::Result result) {
  return result == nvml::kNotFound || result == nvml::kInvalidArgument ||
         result == nvml::kGpuNotFound;
}

// The answers of a driver that is too old for the newer layout of a call.
bool asks_for_older_layout(nvml::Result result) {
  return result == nvml::kFunctionNotFound || result == nvml::kArgumentVersionMismatch ||
         result == nvml::kNotSupported;
}

}  // namespace

const char* problem_name(Problem problem) {
  switch (problem) {
    case Problem::kNotFound:
      return "NVML_NOT_FOUND";
    case Problem::kUnusable:
      return "NVML_UNUSABLE";
    case Problem::kDriverNotLoaded:
      return "NVML_DRIVER_NOT_LOADED";
    case Problem::kVersionMismatch:
      return "NVML_VERSION_MISMATCH";
    case Problem::kNoPermission:
      return "NVML_NO_PERMISSION";
    case Problem::kInitFailed:
      return "NVML_INIT_FAILED";
    case Problem::kCallFailed:
      return "NVML_CALL_FAILED";
    case Problem::kGpuLost:
      return "NVML_GPU_LOST";
    case Problem::kUnknownDevice:
      return "NVML_UNKNOWN_DEVICE";
  }
  return "NVML_CALL_FAILED";
}

// The shared library, closed again when its owner goes.
class Nvml::Library {
 public:
  explicit Library(const std::string& path) : path_(path) {
    handle_ = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle_ == nullptr) {
      const char* why = dlerror();
      throw NvmlError(Problem::kNotFound, 0,
                      "can't open " + path + ": " + (why == nullptr ? "no reason given" : why));
    }
  }
  ~Library() { dlclose(handle_); }
  Library(const Library&) = delete;
  Library& operator=(const Library&) = delete;

  template <typename Function>
  void required(const char* name, Function** out) const {
    optional(name, out);
    if (*out == nullptr) {
      throw NvmlError(Problem::kUnusable, 0,
                      path_ + " has no " + name + ", so it is not a usable NVML");
    }
  }

  template <typename Function>
  void optional(const char* name, Function** out) const {
    *out = reinterpret_cast<Function*>(dlsym(handle_, name));
  }

 private:
  std::string path_;
  void* handle_ = nullptr;
};

// The calls by name. Some driver still in use lacks those of the second group.
struct Symbols {
  nvml::Result (*init)();
  nvml::Result (*shutdown)();
  const char* (*error_string)(nvml::Result);
  nvml::Result (*device_count)(unsigned*);
  nvml::Result (*handle_by_index)(unsigned, nvml::Device*);
  nvml::Result (*handle_by_uuid)(const char*, nvml::Device*);
  nvml::Result (*uuid)(nvml::Device, char*, unsigned);
  nvml::Result (*name)(nvml::Device, char*, unsigned);
  nvml::Result (*memory_v1)(nvml::Device, nvml::MemoryV1*);

  nvml::Result (*memory_v2)(nvml::Device, nvml::MemoryV2*);
  nvml::Result (*driver_version)(char*, unsigned);
  nvml::Result (*cuda_version)(int*);
  nvml::Result (*compute_capability)(nvml::Device, int*, int*);
  nvml::Result (*mig_mode)(nvml::Device, unsigned*, unsigned*);
  nvml::Result (*mig_count_max)(nvml::Device, unsigned*);
  nvml::Result (*mig_handle)(nvml::Device, unsigned, nvml::Device*);
  nvml::Result (*compute_processes)(nvml::Device, unsigned*, nvml::ProcessInfo*);
  nvml::Result (*graphics_processes)(nvml::Device, unsigned*, nvml::ProcessInfo*);
};

std::shared_ptr<Nvml> Nvml::open(const std::string& path) {
  auto library = std::make_unique<Library>(path);
  auto symbols = std::make_unique<Symbols>();

  library->required("nvmlInit_v2", &symbols->init);
  library->required("nvmlShutdown", &symbols->shutdown);
  library->required("nvmlErrorString", &symbols->error_string);
  library->required("nvmlDeviceGetCount_v2", &symbols->device_count);
  library->required("nvmlDeviceGetHandleByIndex_v2", &symbols->handle_by_index);
  library->required("nvmlDeviceGetHandleByUUID", &symbols->handle_by_uuid);
  library->required("nvmlDeviceGetUUID", &symbols->uuid);
  library->required("nvmlDeviceGetName", &symbols->name);
  library->required("nvmlDeviceGetMemoryInfo", &symbols->memory_v1);

  library->optional("nvmlDeviceGetMemoryInfo_v2", &symbols->memory_v2);
  library->optional("nvmlSystemGetDriverVersion", &symbols->driver_version);
  library->optional("nvmlSystemGetCudaDriverVersion_v2", &symbols->cuda_version);
  library->optional("nvmlDeviceGetCudaComputeCapability", &symbols->compute_capability);
  library->optional("nvmlDeviceGetMigMode", &symbols->mig_mode);
  library->optional("nvmlDeviceGetMaxMigDeviceCount", &symbols->mig_count_max);
  library->optional("nvmlDeviceGetMigDeviceHandleByIndex", &symbols->mig_handle);
  library->optional("nvmlDeviceGetComputeRunningProcesses_v3", &symbols->compute_processes);
  if (symbols->compute_processes == nullptr) {
    library->optional("nvmlDeviceGetComputeRunningProcesses_v2", &symbols->compute_processes);
  }
  library->optional("nvmlDeviceGetGraphicsRunningProcesses_v3", &symbols->graphics_processes);
  if (symbols->graphics_processes == nullptr) {
    library->optional("nvmlDeviceGetGraphicsRunningProcesses_v2", &symbols->graphics_processes);
  }

  const nvml::Result result = symbols->init();
  if (result != nvml::kSuccess) {
    throw NvmlError(problem_of_init(result), result,
                    std::string("nvmlInit failed: ") + symbols->error_string(result));
  }
  return std::shared_ptr<Nvml>(new Nvml(std::move(library), std::move(symbols)));
}

Nvml::Nvml(std::unique_ptr<Library> library, std::unique_ptr<Symbols> symbols)
    : library_(std::move(library)), symbols_(std::move(symbols)) {}

Nvml::~Nvml() { symbols_->shutdown(); }

std::optional<std::string> Nvml::driver_version() const {
  std::array<char, nvml::kVersionBytes> text{};
  if (symbols_->driver_version == nullptr) return std::nullopt;
  if (symbols_->driver_version(text.data(), text.size()) != nvml::kSuccess) return std::nullopt;
  return std::string(text.data());
}

std::optional<int> Nvml::cuda_version() const {
  int version = 0;
  if (symbols_->cuda_version == nullptr) return std::nullopt;
  if (symbols_->cuda_version(&version) != nvml::kSuccess) return std::nullopt;
  return version;
}

std::vector<Device> Nvml::devices() {
  unsigned count = 0;
  check("nvmlDeviceGetCount", symbols_->device_count(&count));
  std::vector<Device> out;
  for (unsigned index = 0; index < count && index < kDevicesMax; ++index) {
    Device device;
    device.index = index;
    nvml::Device handle = nullptr;
    try {
      check("nvmlDeviceGetHandleByIndex", symbols_->handle_by_index(index, &handle));
      describe(handle, &device);
    } catch (const NvmlError& error) {
      device.fault = Fault{error.problem(), error.result(), error.what()};
    }
    if (!device.fault) {
      std::lock_guard<std::mutex> lock(mutex_);
      handles_[device.uuid] = handle;
    }
    out.push_back(device);
    if (device.mig == Mig::kPartitioned) add_instances(handle, device, &out);
  }
  return out;
}

Memory Nvml::read(const std::string& uuid) {
  const nvml::Device handle = handle_of(uuid);
  try {
    return read_handle(handle);
  } catch (const NvmlError& error) {
    if (error.problem() == Problem::kGpuLost || error.result() == nvml::kInvalidArgument) {
      // The name stays known, so that a device that never comes back is "lost", not "unknown".
      std::lock_guard<std::mutex> lock(mutex_);
      handles_[uuid] = nullptr;
    }
    throw;
  }
}

nvml::Device Nvml::handle_of(const std::string& uuid) {
  std::lock_guard<std::mutex> lock(mutex_);
  const auto found = handles_.find(uuid);
  const bool known = found != handles_.end();
  if (known && found->second != nullptr) return found->second;

  nvml::Device handle = nullptr;
  const nvml::Result result = symbols_->handle_by_uuid(uuid.c_str(), &handle);
  if (names_no_device(result)) {
    throw NvmlError(known ? Problem::kGpuLost : Problem::kUnknownDevice, result,
                    known ? "device " + uuid + " is gone" : "there is no device " + uuid);
  }
  check("nvmlDeviceGetHandleByUUID", result);
  handles_[uuid] = handle;
  return handle;
}

Memory Nvml::read_handle(nvml::Device handle) const {
  if (symbols_->memory_v2 != nullptr) {
    nvml::MemoryV2 raw{};
    raw.version = nvml::kMemoryV2Version;
    const nvml::Result result = symbols_->memory_v2(handle, &raw);
    if (result == nvml::kSuccess) return Memory{raw.total, raw.free, raw.used, raw.reserved};
    if (!asks_for_older_layout(result)) fail("nvmlDeviceGetMemoryInfo_v2", result);
  }
  nvml::MemoryV1 raw{};
  check("nvmlDeviceGetMemoryInfo", symbols_->memory_v1(handle, &raw));
  return Memory{raw.total, raw.free, raw.used, std::nullopt};
}

void Nvml::describe(nvml::Device handle, Device* device) const {
  std::array<char, nvml::kUuidBytes> uuid{};
  check("nvmlDeviceGetUUID", symbols_->uuid(handle, uuid.data(), uuid.size()));
  device->uuid = uuid.data();
  std::array<char, nvml::kNameBytes> name{};
  check("nvmlDeviceGetName", symbols_->name(handle, name.data(), name.size()));
  device->name = name.data();

  unsigned mig_now = 0;
  unsigned mig_after_reset = 0;
  if (device->mig == Mig::kOff && symbols_->mig_mode != nullptr &&
      symbols_->mig_mode(handle, &mig_now, &mig_after_reset) == nvml::kSuccess && mig_now == 1) {
    device->mig = Mig::kPartitioned;
  }
  int major = 0;
  int minor = 0;
  if (symbols_->compute_capability != nullptr &&
      symbols_->compute_capability(handle, &major, &minor) == nvml::kSuccess) {
    device->compute_capability_major = major;
    device->compute_capability_minor = minor;
  }
  device->memory = read_handle(handle);
  try {
    device->processes = processes_of(handle);
  } catch (const NvmlError&) {
    // Containers may see no processes, which must not hide the memory.
    device->processes = std::nullopt;
  }
}

void Nvml::add_instances(nvml::Device parent, const Device& whole, std::vector<Device>* out) const {
  unsigned count = 0;
  if (symbols_->mig_count_max == nullptr || symbols_->mig_handle == nullptr ||
      symbols_->mig_count_max(parent, &count) != nvml::kSuccess) {
    return;
  }
  for (unsigned slot = 0; slot < count && slot < kDevicesMax; ++slot) {
    nvml::Device handle = nullptr;
    // Slots may have no instance.
    if (symbols_->mig_handle(parent, slot, &handle) != nvml::kSuccess) continue;
    Device instance;
    instance.index = whole.index;
    instance.mig = Mig::kInstance;
    instance.parent_uuid = whole.uuid;
    try {
      describe(handle, &instance);
    } catch (const NvmlError& error) {
      instance.fault = Fault{error.problem(), error.result(), error.what()};
    }
    if (!instance.compute_capability_major) {
      instance.compute_capability_major = whole.compute_capability_major;
      instance.compute_capability_minor = whole.compute_capability_minor;
    }
    out->push_back(std::move(instance));
  }
}

std::vector<Process> Nvml::processes_of(nvml::Device handle) const {
  std::vector<Process> out;
  if (symbols_->compute_processes == nullptr) {
    fail("nvmlDeviceGetComputeRunningProcesses", nvml::kFunctionNotFound);
  }
  for (const bool graphics : {false, true}) {
    const auto call = graphics ? symbols_->graphics_processes : symbols_->compute_processes;
    if (call == nullptr) continue;
    std::vector<nvml::ProcessInfo> found(32);
    nvml::Result result = nvml::kInsufficientSize;
    unsigned count = 0;
    for (int tries = 0; tries < kProcessTries && result == nvml::kInsufficientSize; ++tries) {
      count = static_cast<unsigned>(found.size());
      result = call(handle, &count, found.data());
      if (result == nvml::kInsufficientSize) {
        if (count > kProcessesMax) break;
        found.resize(std::size_t{count} + 16);
      }
    }
    if (graphics && result == nvml::kNotSupported) continue;
    check("nvmlDeviceGetRunningProcesses", result);
    for (unsigned i = 0; i < count; ++i) {
      Process process{found[i].pid, graphics, std::nullopt};
      if (found[i].used_gpu_memory != nvml::kValueNotAvailable) {
        process.used_bytes = found[i].used_gpu_memory;
      }
      out.push_back(process);
    }
  }
  return out;
}

void Nvml::fail(const char* call, nvml::Result result) const {
  throw NvmlError(problem_of_call(result), result,
                  std::string(call) + " failed: " + symbols_->error_string(result));
}

void Nvml::check(const char* call, nvml::Result result) const {
  if (result != nvml::kSuccess) fail(call, result);
}

}  // namespace gpu
