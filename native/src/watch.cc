#include "watch.h"

#include <algorithm>
#include <utility>

namespace gpu {

namespace {

// A lost device is asked at most this rarely, whatever the interval.
constexpr std::chrono::milliseconds kRetryMax{5000};
constexpr int kDoublingsMax = 6;

double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

Watch::Watch(std::shared_ptr<Nvml> nvml, WatchOptions options, Sink sink, End end)
    : nvml_(std::move(nvml)),
      options_(std::move(options)),
      sink_(std::move(sink)),
      end_(std::move(end)),
      trend_(options_.trend),
      thread_([this] { run(); }) {}

Watch::~Watch() {
  request_stop();
  thread_.join();
}

void Watch::request_stop() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
}

void Watch::run() {
  do {
    offer(next_event());
  } while (wait());
  end_();
}

// One reading, and what it changed.
std::optional<WatchEvent> Watch::next_event() {
  WatchEvent event;
  try {
    event.memory = nvml_->read(options_.uuid);
  } catch (const NvmlError& error) {
    ++failures_;
    if (failing_with_ == error.result()) return std::nullopt;
    failing_with_ = error.result();
    event.news = WatchNews::kFault;
    event.fault = Fault{error.problem(), error.result(), error.what()};
    return event;
  }
  const bool restored = failing_with_.has_value();
  if (restored) trend_.restart();
  failing_with_.reset();
  failures_ = 0;

  event.trend = trend_.observe(seconds_now(), event.memory.free);
  switch (event.trend.news) {
    case TrendNews::kBelow:
      event.news = WatchNews::kBelow;
      return event;
    case TrendNews::kAbove:
      event.news = WatchNews::kAbove;
      return event;
    case TrendNews::kDraining:
      event.news = WatchNews::kDraining;
      return event;
    case TrendNews::kNone:
      break;
  }
  if (!restored) return std::nullopt;
  event.news = WatchNews::kRestored;
  return event;
}

void Watch::offer(std::optional<WatchEvent> event) {
  if (event) {
    if (waiting_) event->replaced = waiting_->replaced + 1;
    waiting_ = std::move(event);
  }
  if (waiting_ && sink_(*waiting_)) waiting_.reset();
}

// False once the watch is to end.
bool Watch::wait() {
  std::chrono::milliseconds pause = options_.interval;
  if (failures_ > 0) {
    const int doublings = std::min(failures_, kDoublingsMax);
    pause = std::max(pause, std::min(pause * (1 << doublings), kRetryMax));
  }
  std::unique_lock<std::mutex> lock(mutex_);
  return !wake_.wait_for(lock, pause, [this] { return stopping_; });
}

}  // namespace gpu
