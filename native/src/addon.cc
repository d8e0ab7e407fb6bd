// The boundary to JavaScript: converts arguments and results, and nothing else.
// src/gpu/addon.ts declares what is exported here and is the only caller; it validates options,
// so that what arrives is of the right type.

#include <napi.h>

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "nvml.h"
#include "watch.h"

namespace gpu {
namespace {

// Each watch is a thread. A caller that forgets to close them is told, not served.
constexpr int kWatchesMax = 64;
// Events that wait for the event loop, per watch; the watch keeps one more and merges the rest.
constexpr std::size_t kEventsQueuedMax = 8;

// Per environment: the main thread and each worker thread have their own.
struct State {
  int watches = 0;
};
using SharedState = std::shared_ptr<State>;

// ---- results ----

Napi::Value number(Napi::Env env, std::uint64_t value) {
  // Bytes of a device stay far below 2^53, above which a double would lose them.
  return Napi::Number::New(env, static_cast<double>(value));
}

Napi::Error error_of(Napi::Env env, const Fault& fault) {
  Napi::Error error = Napi::Error::New(env, fault.message);
  error.Set("code", Napi::String::New(env, problem_name(fault.problem)));
  error.Set("nvmlResult", Napi::Number::New(env, fault.result));
  return error;
}

Napi::Object to_js(Napi::Env env, const Memory& memory) {
  Napi::Object out = Napi::Object::New(env);
  out.Set("totalBytes", number(env, memory.total));
  out.Set("freeBytes", number(env, memory.free));
  out.Set("usedBytes", number(env, memory.used));
  if (memory.reserved) out.Set("reservedBytes", number(env, *memory.reserved));
  return out;
}

Napi::Array to_js(Napi::Env env, const std::vector<Process>& processes) {
  Napi::Array out = Napi::Array::New(env, processes.size());
  for (std::uint32_t i = 0; i < processes.size(); ++i) {
    Napi::Object process = Napi::Object::New(env);
    process.Set("pid", Napi::Number::New(env, processes[i].pid));
    process.Set("kind", Napi::String::New(env, processes[i].graphics ? "graphics" : "compute"));
    if (processes[i].used_bytes) process.Set("usedBytes", number(env, *processes[i].used_bytes));
    out.Set(i, process);
  }
  return out;
}

const char* mig_name(Mig mig) {
  switch (mig) {
    case Mig::kOff:
      return "off";
    case Mig::kPartitioned:
      return "partitioned";
    case Mig::kInstance:
      return "instance";
  }
  return "off";
}

Napi::Object to_js(Napi::Env env, const Device& device) {
  Napi::Object out = Napi::Object::New(env);
  out.Set("index", Napi::Number::New(env, device.index));
  out.Set("uuid", Napi::String::New(env, device.uuid));
  out.Set("name", Napi::String::New(env, device.name));
  out.Set("mig", Napi::String::New(env, mig_name(device.mig)));
  if (!device.parent_uuid.empty()) {
    out.Set("parentUuid", Napi::String::New(env, device.parent_uuid));
  }
  if (device.compute_capability_major && device.compute_capability_minor) {
    out.Set("computeCapability",
            Napi::String::New(env, std::to_string(*device.compute_capability_major) + "." +
                                       std::to_string(*device.compute_capability_minor)));
  }
  if (device.memory) out.Set("memory", to_js(env, *device.memory));
  if (device.processes) out.Set("processes", to_js(env, *device.processes));
  if (device.fault) out.Set("fault", error_of(env, *device.fault).Value());
  return out;
}

Napi::Array to_js(Napi::Env env, const std::vector<Device>& devices) {
  Napi::Array out = Napi::Array::New(env, devices.size());
  for (std::uint32_t i = 0; i < devices.size(); ++i) out.Set(i, to_js(env, devices[i]));
  return out;
}

const char* news_name(WatchNews news) {
  switch (news) {
    case WatchNews::kBelow:
      return "below";
    case WatchNews::kAbove:
      return "above";
    case WatchNews::kDraining:
      return "draining";
    case WatchNews::kFault:
      return "fault";
    case WatchNews::kRestored:
      return "restored";
  }
  return "fault";
}

Napi::Object to_js(Napi::Env env, const WatchEvent& event) {
  Napi::Object out = Napi::Object::New(env);
  out.Set("kind", Napi::String::New(env, news_name(event.news)));
  out.Set("replaced", number(env, event.replaced));
  if (event.fault) {
    out.Set("error", error_of(env, *event.fault).Value());
    return out;
  }
  out.Set("memory", to_js(env, event.memory));
  if (event.trend.bytes_per_second) {
    out.Set("bytesPerSecond", Napi::Number::New(env, *event.trend.bytes_per_second));
  }
  if (event.trend.seconds_to_exhaustion) {
    out.Set("secondsToExhaustion", Napi::Number::New(env, *event.trend.seconds_to_exhaustion));
  }
  return out;
}

// ---- calls that leave the event loop alone ----

// Does `work` on the thread pool, then settles a promise with what `convert` makes of it.
template <typename Result>
class Task : public Napi::AsyncWorker {
 public:
  using Work = std::function<Result()>;
  using Convert = std::function<Napi::Value(Napi::Env, Result&)>;

  static Napi::Value start(Napi::Env env, Work work, Convert convert) {
    auto* task = new Task(env, std::move(work), std::move(convert));
    const Napi::Promise promise = task->deferred_.Promise();
    task->Queue();
    return promise;
  }

  void Execute() override {
    try {
      result_ = work_();
    } catch (const NvmlError& error) {
      fault_ = Fault{error.problem(), error.result(), error.what()};
      SetError(error.what());
    } catch (const std::exception& error) {
      fault_ = Fault{Problem::kCallFailed, 0, error.what()};
      SetError(error.what());
    }
  }
  void OnOK() override { deferred_.Resolve(convert_(Env(), result_)); }
  void OnError(const Napi::Error&) override { deferred_.Reject(error_of(Env(), fault_).Value()); }

 private:
  Task(Napi::Env env, Work work, Convert convert)
      : Napi::AsyncWorker(env, "lazygraph.nvml"),
        deferred_(Napi::Promise::Deferred::New(env)),
        work_(std::move(work)),
        convert_(std::move(convert)) {}

  Napi::Promise::Deferred deferred_;
  Work work_;
  Convert convert_;
  Result result_{};
  Fault fault_{Problem::kCallFailed, 0, ""};
};

// ---- watches ----

struct WatchContext;

// What the JavaScript handle and the thread's owner share; used on the JavaScript thread alone.
struct WatchHandle {
  WatchContext* context = nullptr;  // null before the thread runs and after it has ended
  bool closed = false;
};

void deliver(Napi::Env env, Napi::Function callback, WatchContext* context, WatchEvent* event);
using WatchFunction = Napi::TypedThreadSafeFunction<WatchContext, WatchEvent, deliver>;

// Owns the thread. Lives until the thread-safe function is finalised, which is either after the
// thread released it or while the environment is torn down under a running thread.
struct WatchContext {
  WatchContext(SharedState shared_state, napi_deferred end)
      : state(std::move(shared_state)), ended(end) {
    ++state->watches;
  }
  ~WatchContext() { --state->watches; }

  SharedState state;
  napi_deferred ended;
  std::shared_ptr<WatchHandle> handle = std::make_shared<WatchHandle>();
  std::unique_ptr<Watch> watch;
  WatchFunction function;
};

void deliver(Napi::Env env, Napi::Function callback, WatchContext* context, WatchEvent* event) {
  const std::unique_ptr<WatchEvent> owned(event);
  if (static_cast<napi_env>(env) == nullptr || context->handle->closed) return;
  try {
    callback.Call({to_js(env, *event)});
  } catch (const Napi::Error&) {
    // src/gpu catches what a user's callback throws; what is left is an environment that ends.
  }
}

// Runs on the JavaScript thread, and waits for the watch's thread before the function that the
// thread calls is freed.
void finalize_watch(Napi::Env env, void*, WatchContext* context) {
  context->handle->closed = true;
  context->handle->context = nullptr;
  context->watch.reset();
  const napi_deferred ended = context->ended;
  delete context;
  // Plain calls, because a failure of an ending environment is of no interest and must not throw.
  napi_value undefined = nullptr;
  if (napi_get_undefined(env, &undefined) == napi_ok) {
    napi_resolve_deferred(env, ended, undefined);
  }
}

WatchOptions watch_options(const Napi::Object& object) {
  WatchOptions options;
  options.uuid = object.Get("uuid").As<Napi::String>().Utf8Value();
  options.interval =
      std::chrono::milliseconds(object.Get("intervalMs").As<Napi::Number>().Int64Value());
  options.trend.below_bytes =
      static_cast<std::uint64_t>(object.Get("belowBytes").As<Napi::Number>().DoubleValue());
  options.trend.hysteresis_bytes =
      static_cast<std::uint64_t>(object.Get("hysteresisBytes").As<Napi::Number>().DoubleValue());
  options.trend.within_seconds = object.Get("withinSeconds").As<Napi::Number>().DoubleValue();
  return options;
}

Napi::Value start_watch(const Napi::CallbackInfo& info, const std::shared_ptr<Nvml>& nvml,
                        const SharedState& state) {
  const Napi::Env env = info.Env();
  if (state->watches >= kWatchesMax) {
    throw Napi::Error::New(env, "more than " + std::to_string(kWatchesMax) +
                                    " watches are open; close those that are not needed");
  }
  WatchOptions options = watch_options(info[0].As<Napi::Object>());
  napi_deferred ended = nullptr;
  napi_value closed = nullptr;
  if (napi_create_promise(env, &ended, &closed) != napi_ok) throw Napi::Error::New(env);

  auto* context = new WatchContext(state, ended);
  const std::shared_ptr<WatchHandle> handle = context->handle;
  context->function =
      WatchFunction::New(env, info[1].As<Napi::Function>(), "lazygraph.watch", kEventsQueuedMax, 1,
                         context, finalize_watch, static_cast<void*>(nullptr));
  // A monitor is no reason for a process to stay alive.
  context->function.Unref(env);
  try {
    context->watch = std::make_unique<Watch>(
        nvml, std::move(options),
        [context](const WatchEvent& event) {
          auto* copy = new WatchEvent(event);
          const napi_status status = context->function.NonBlockingCall(copy);
          if (status == napi_ok) return true;
          delete copy;
          return status != napi_queue_full;
        },
        [context] { context->function.Release(); });
  } catch (const std::exception& error) {
    // No thread could be started; the finaliser frees the context.
    context->function.Release();
    throw Napi::Error::New(env, std::string("can't start a watch thread: ") + error.what());
  }
  handle->context = context;

  Napi::Object out = Napi::Object::New(env);
  out.Set("closed", Napi::Value(env, closed));
  out.Set("close", Napi::Function::New(env, [handle](const Napi::CallbackInfo& call) {
            if (handle->closed || handle->context == nullptr) return;
            handle->closed = true;
            // Somebody may wait for `closed`, which must not end with the event loop.
            handle->context->function.Ref(call.Env());
            handle->context->watch->request_stop();
          }));
  return out;
}

// ---- the session: NVML between open() and close() ----

// Empty once closed. A survey or a watch under way holds NVML itself until it has ended.
struct Session {
  std::shared_ptr<Nvml> nvml;
};
using SharedSession = std::shared_ptr<Session>;

std::shared_ptr<Nvml> nvml_of(Napi::Env env, const SharedSession& session) {
  if (!session->nvml) throw Napi::Error::New(env, "this NVML session was closed");
  return session->nvml;
}

Napi::Value list_devices(const Napi::CallbackInfo& info, const SharedSession& session) {
  return Task<std::vector<Device>>::start(
      info.Env(), [nvml = nvml_of(info.Env(), session)] { return nvml->devices(); },
      [](Napi::Env env, std::vector<Device>& devices) { return to_js(env, devices); });
}

Napi::Value read(const Napi::CallbackInfo& info, const SharedSession& session) {
  const Napi::Env env = info.Env();
  try {
    return to_js(env, nvml_of(env, session)->read(info[0].As<Napi::String>().Utf8Value()));
  } catch (const NvmlError& error) {
    throw error_of(env, Fault{error.problem(), error.result(), error.what()});
  }
}

Napi::Object session_to_js(Napi::Env env, const std::shared_ptr<Nvml>& nvml,
                           const SharedState& state) {
  Napi::Object out = Napi::Object::New(env);
  if (const auto version = nvml->driver_version()) {
    out.Set("driverVersion", Napi::String::New(env, *version));
  }
  if (const auto version = nvml->cuda_version()) {
    out.Set("cudaVersion", Napi::String::New(env, std::to_string(*version / 1000) + "." +
                                                      std::to_string(*version % 1000 / 10)));
  }
  const auto session = std::make_shared<Session>(Session{nvml});
  const auto method = [&](const char* name, auto call) {
    out.Set(name, Napi::Function::New(env, std::move(call), name));
  };
  method("devices",
         [session](const Napi::CallbackInfo& info) { return list_devices(info, session); });
  method("read", [session](const Napi::CallbackInfo& info) { return read(info, session); });
  method("watch", [session, state](const Napi::CallbackInfo& info) {
    return start_watch(info, nvml_of(info.Env(), session), state);
  });
  method("close", [session](const Napi::CallbackInfo&) { session->nvml.reset(); });
  return out;
}

Napi::Value open(const Napi::CallbackInfo& info) {
  const std::string path = info[0].As<Napi::String>().Utf8Value();
  const SharedState state = *info.Env().GetInstanceData<SharedState>();
  return Task<std::shared_ptr<Nvml>>::start(
      info.Env(), [path] { return Nvml::open(path); },
      [state](Napi::Env env, std::shared_ptr<Nvml>& nvml) {
        Napi::Object out = session_to_js(env, nvml, state);
        nvml.reset();  // the session decides how long it lives, not this task's garbage
        return out;
      });
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  env.SetInstanceData(new SharedState(std::make_shared<State>()));
  exports.Set("open", Napi::Function::New(env, open));
  return exports;
}

}  // namespace

NODE_API_MODULE(gpu_memory, init)

}  // namespace gpu
