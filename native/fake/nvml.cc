// A stand-in for libnvidia-ml, for tests only. LAZYGRAPH_FAKE_NVML names its script, one
// statement a line:
//
//   init 9                      nvmlInit answers with this result (0 is success)
//   count 999                   nvmlDeviceGetCount answers with this result
//   driver 570.86.10            versions; "none" makes the call fail
//   cuda 12080
//   without CALL                this call answers "function not found", as an old driver does
//   log FILE                    appends "init" and "shutdown" lines as they happen
//   device UUID key=value…      a GPU: name (_ for a space), total, reserved, free, cc=9.0, mig=1,
//                               handle=15 (result of asking for it by index)
//   instance UUID key=value…    a MIG instance of the device before it
//   process UUID pid=1 used=2 graphics=1     (used=none where it is not known)
//
// `free` is a list by commas, one element a reading, the last for ever: bytes, "!15" for a result
// of that number, "gone" for a device that was unplugged, or "@FILE", whose content is one of
// these and is read anew each time, so that a test can change it.

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "nvml_abi.h"

using namespace gpu::nvml;

namespace gpu::nvml {

struct OpaqueDevice {
  std::string uuid;
  std::map<std::string, std::string> keys;
  std::vector<std::string> free;
  std::size_t read = 0;
  std::vector<OpaqueDevice*> instances;
  std::vector<ProcessInfo> compute;
  std::vector<ProcessInfo> graphics;

  std::string key(const std::string& name, const std::string& otherwise) const {
    const auto found = keys.find(name);
    return found == keys.end() ? otherwise : found->second;
  }
  std::uint64_t bytes(const std::string& name) const { return std::stoull(key(name, "0")); }

  // The element of the list that counts now; a reading then moves on to the next.
  std::string now() const {
    const std::string& element = free[std::min(read, free.size() - 1)];
    if (element[0] != '@') return element;
    std::ifstream file(element.substr(1));
    std::string content;
    file >> content;
    // An empty file is one that the test is just writing.
    return content.empty() ? "!999" : content;
  }
  bool gone() const { return now() == "gone"; }
};

}  // namespace gpu::nvml

namespace {

struct Script {
  Result init = kSuccess;
  Result count = kSuccess;
  std::string driver = "570.86.10";
  std::string cuda = "12080";
  std::string log;
  std::set<std::string> without;
  std::vector<std::unique_ptr<OpaqueDevice>> all;
  std::vector<OpaqueDevice*> gpus;

  OpaqueDevice* find(const std::string& uuid) {
    for (const auto& device : all) {
      if (device->uuid == uuid) return device.get();
    }
    return nullptr;
  }
};

std::mutex mutex;
Script script;
int inits = 0;

std::vector<std::string> split(const std::string& text, char by) {
  std::vector<std::string> out;
  std::stringstream stream(text);
  for (std::string part; std::getline(stream, part, by);) out.push_back(part);
  return out;
}

// A script that can't be read must end the test, not look like an odd driver.
[[noreturn]] void give_up(const std::string& why) {
  std::fprintf(stderr, "fake nvml: %s\n", why.c_str());
  std::abort();
}

void add_process(Script* out, const std::string& uuid,
                 const std::map<std::string, std::string>& keys) {
  OpaqueDevice* device = out->find(uuid);
  if (device == nullptr) give_up("process of unknown device " + uuid);
  ProcessInfo info{};
  info.pid = static_cast<unsigned>(std::stoul(keys.at("pid")));
  const std::string used = keys.at("used");
  info.used_gpu_memory = used == "none" ? kValueNotAvailable : std::stoull(used);
  (keys.count("graphics") ? device->graphics : device->compute).push_back(info);
}

void add_device(Script* out, const std::string& uuid, bool instance,
                std::map<std::string, std::string> keys) {
  auto device = std::make_unique<OpaqueDevice>();
  device->uuid = uuid;
  device->keys = std::move(keys);
  device->free = split(device->key("free", "0"), ',');
  if (instance) {
    if (out->gpus.empty()) give_up("an instance before any device");
    out->gpus.back()->instances.push_back(device.get());
  } else {
    out->gpus.push_back(device.get());
  }
  out->all.push_back(std::move(device));
}

void read_statement(Script* out, const std::string& line) {
  std::stringstream words(line);
  std::string verb;
  if (!(words >> verb) || verb[0] == '#') return;
  std::string object;
  words >> object;
  std::map<std::string, std::string> keys;
  for (std::string pair; words >> pair;) {
    const std::size_t at = pair.find('=');
    if (at == std::string::npos) give_up("no key=value: " + pair);
    keys[pair.substr(0, at)] = pair.substr(at + 1);
  }
  if (verb == "init") {
    out->init = std::stoi(object);
  } else if (verb == "count") {
    out->count = std::stoi(object);
  } else if (verb == "driver") {
    out->driver = object;
  } else if (verb == "cuda") {
    out->cuda = object;
  } else if (verb == "without") {
    out->without.insert(object);
  } else if (verb == "log") {
    out->log = object;
  } else if (verb == "device" || verb == "instance") {
    add_device(out, object, verb == "instance", std::move(keys));
  } else if (verb == "process") {
    add_process(out, object, keys);
  } else {
    give_up("unknown statement " + verb);
  }
}

void note(const char* what) {
  if (!script.log.empty()) std::ofstream(script.log, std::ios::app) << what << "\n";
}

Result put(const std::string& text, char* out, unsigned length) {
  if (text.size() + 1 > length) return kInsufficientSize;
  std::memcpy(out, text.c_str(), text.size() + 1);
  return kSuccess;
}

// Takes one reading off the script.
Result take_reading(OpaqueDevice* device, std::uint64_t* free) {
  const std::string now = device->now();
  ++device->read;
  if (now == "gone") return kGpuIsLost;
  if (now[0] == '!') return std::stoi(now.substr(1));
  *free = std::stoull(now);
  return kSuccess;
}

Result list_processes(const std::vector<ProcessInfo>& from, unsigned* count, ProcessInfo* out) {
  const unsigned room = *count;
  *count = static_cast<unsigned>(from.size());
  if (from.size() > room) return kInsufficientSize;
  std::copy(from.begin(), from.end(), out);
  return kSuccess;
}

}  // namespace

#define FAKE_CALL(name)                    \
  std::lock_guard<std::mutex> lock(mutex); \
  if (inits == 0) return kUninitialized;   \
  if (script.without.count(name)) return kFunctionNotFound

extern "C" {

Result nvmlInit_v2() {
  std::lock_guard<std::mutex> lock(mutex);
  if (inits == 0) {
    script = Script{};
    if (const char* path = std::getenv("LAZYGRAPH_FAKE_NVML")) {
      std::ifstream file(path);
      if (!file) give_up(std::string("can't read ") + path);
      for (std::string line; std::getline(file, line);) read_statement(&script, line);
    } else {
      read_statement(&script,
                     "device GPU-00000000-0000-0000-0000-000000000000 name=Fake_GPU "
                     "total=85899345920 reserved=1073741824 free=80530636800 cc=9.0");
    }
  }
  if (script.init != kSuccess) return script.init;
  ++inits;
  note("init");
  return kSuccess;
}

Result nvmlShutdown() {
  std::lock_guard<std::mutex> lock(mutex);
  if (inits == 0) return kUninitialized;
  --inits;
  note("shutdown");
  return kSuccess;
}

const char* nvmlErrorString(Result result) {
  switch (result) {
    case kSuccess:
      return "Success";
    case kUninitialized:
      return "Uninitialized";
    case kNoPermission:
      return "Insufficient Permissions";
    case kNotFound:
      return "Not Found";
    case kDriverNotLoaded:
      return "Driver Not Loaded";
    case kFunctionNotFound:
      return "Function Not Found";
    case kGpuIsLost:
      return "GPU is lost";
    case kLibRmVersionMismatch:
      return "Driver/library version mismatch";
    default:
      return "Unknown Error";
  }
}

Result nvmlSystemGetDriverVersion(char* out, unsigned length) {
  FAKE_CALL("nvmlSystemGetDriverVersion");
  return script.driver == "none" ? kNotSupported : put(script.driver, out, length);
}

Result nvmlSystemGetCudaDriverVersion_v2(int* out) {
  FAKE_CALL("nvmlSystemGetCudaDriverVersion_v2");
  if (script.cuda == "none") return kNotSupported;
  *out = std::stoi(script.cuda);
  return kSuccess;
}

Result nvmlDeviceGetCount_v2(unsigned* out) {
  FAKE_CALL("nvmlDeviceGetCount_v2");
  *out = static_cast<unsigned>(script.gpus.size());
  return script.count;
}

Result nvmlDeviceGetHandleByIndex_v2(unsigned index, Device* out) {
  FAKE_CALL("nvmlDeviceGetHandleByIndex_v2");
  if (index >= script.gpus.size()) return kInvalidArgument;
  if (script.gpus[index]->gone()) return kGpuIsLost;
  *out = script.gpus[index];
  return std::stoi(script.gpus[index]->key("handle", "0"));
}

Result nvmlDeviceGetHandleByUUID(const char* uuid, Device* out) {
  FAKE_CALL("nvmlDeviceGetHandleByUUID");
  OpaqueDevice* device = script.find(uuid);
  if (device == nullptr || device->gone()) return kNotFound;
  *out = device;
  return kSuccess;
}

Result nvmlDeviceGetUUID(Device device, char* out, unsigned length) {
  FAKE_CALL("nvmlDeviceGetUUID");
  return put(device->uuid, out, length);
}

Result nvmlDeviceGetName(Device device, char* out, unsigned length) {
  FAKE_CALL("nvmlDeviceGetName");
  std::string name = device->key("name", "Fake_GPU");
  std::replace(name.begin(), name.end(), '_', ' ');
  return put(name, out, length);
}

Result nvmlDeviceGetMemoryInfo(Device device, MemoryV1* out) {
  FAKE_CALL("nvmlDeviceGetMemoryInfo");
  std::uint64_t free = 0;
  const Result result = take_reading(device, &free);
  if (result != kSuccess) return result;
  *out = MemoryV1{device->bytes("total"), free, device->bytes("total") - free};
  return kSuccess;
}

Result nvmlDeviceGetMemoryInfo_v2(Device device, MemoryV2* out) {
  FAKE_CALL("nvmlDeviceGetMemoryInfo_v2");
  if (out->version != kMemoryV2Version) return kArgumentVersionMismatch;
  std::uint64_t free = 0;
  const Result result = take_reading(device, &free);
  if (result != kSuccess) return result;
  out->total = device->bytes("total");
  out->reserved = device->bytes("reserved");
  out->free = free;
  out->used = out->total - out->reserved - free;
  return kSuccess;
}

Result nvmlDeviceGetCudaComputeCapability(Device device, int* major, int* minor) {
  FAKE_CALL("nvmlDeviceGetCudaComputeCapability");
  const std::vector<std::string> parts = split(device->key("cc", ""), '.');
  if (parts.size() != 2) return kNotSupported;
  *major = std::stoi(parts[0]);
  *minor = std::stoi(parts[1]);
  return kSuccess;
}

Result nvmlDeviceGetMigMode(Device device, unsigned* now, unsigned* after_reset) {
  FAKE_CALL("nvmlDeviceGetMigMode");
  if (device->key("mig", "").empty()) return kNotSupported;
  *now = *after_reset = static_cast<unsigned>(device->bytes("mig"));
  return kSuccess;
}

Result nvmlDeviceGetMaxMigDeviceCount(Device, unsigned* out) {
  FAKE_CALL("nvmlDeviceGetMaxMigDeviceCount");
  *out = 7;  // as on every GPU that can be divided; slots without an instance answer "not found"
  return kSuccess;
}

Result nvmlDeviceGetMigDeviceHandleByIndex(Device device, unsigned index, Device* out) {
  FAKE_CALL("nvmlDeviceGetMigDeviceHandleByIndex");
  if (index >= device->instances.size()) return kNotFound;
  *out = device->instances[index];
  return kSuccess;
}

Result nvmlDeviceGetComputeRunningProcesses_v3(Device device, unsigned* count, ProcessInfo* out) {
  FAKE_CALL("nvmlDeviceGetComputeRunningProcesses_v3");
  return list_processes(device->compute, count, out);
}

Result nvmlDeviceGetGraphicsRunningProcesses_v3(Device device, unsigned* count, ProcessInfo* out) {
  FAKE_CALL("nvmlDeviceGetGraphicsRunningProcesses_v3");
  return list_processes(device->graphics, count, out);
}

}  // extern "C"
