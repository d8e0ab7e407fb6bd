// A thread that reads one device's memory at an interval and reports what is news.
// Knows no JavaScript: its owner hands in a sink.

#ifndef LAZYGRAPH_NATIVE_WATCH_H_
#define LAZYGRAPH_NATIVE_WATCH_H_

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "nvml.h"
#include "trend.h"

namespace gpu {

struct WatchOptions {
  std::string uuid;
  std::chrono::milliseconds interval{1000};
  TrendOptions trend;
};

enum class WatchNews {
  kBelow,
  kAbove,
  kDraining,
  kFault,     // a reading failed; the thread goes on trying, more slowly
  kRestored,  // readings work again
};

struct WatchEvent {
  WatchNews news = WatchNews::kBelow;
  Memory memory;               // unless kFault
  TrendReport trend;           // unless kFault
  std::optional<Fault> fault;  // of kFault
  // Events that this one replaced because the receiver had not taken them.
  std::uint64_t replaced = 0;
};

class Watch {
 public:
  // Called on the thread. False means "not now": the event is offered again with the next
  // reading, or replaced by a newer one, so that the receiver's queue needs no more than a bound.
  using Sink = std::function<bool(const WatchEvent&)>;
  // Called on the thread, last.
  using End = std::function<void()>;

  Watch(std::shared_ptr<Nvml> nvml, WatchOptions options, Sink sink, End end);
  // Stops and waits for a reading under way.
  ~Watch();
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;

  // Ends the thread soon, without waiting for it.
  void request_stop();

 private:
  void run();
  std::optional<WatchEvent> next_event();
  void offer(std::optional<WatchEvent> event);
  bool wait();

  const std::shared_ptr<Nvml> nvml_;
  const WatchOptions options_;
  const Sink sink_;
  const End end_;

  // Of the thread alone.
  Trend trend_;
  std::optional<WatchEvent> waiting_;
  std::optional<nvml::Result> failing_with_;
  int failures_ = 0;

  std::mutex mutex_;
  std::condition_variable wake_;
  bool stopping_ = false;
  std::thread thread_;  // last, because it starts in the constructor and uses all of the above
};

}  // namespace gpu

#endif  // LAZYGRAPH_NATIVE_WATCH_H_
