// Tests the native code without JavaScript: sanitizers see nothing else.
// Usage: driver FAKE_NVML_LIBRARY TREND_CASES SCRATCH_FOLDER

#include <atomic>
#include <cmath>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <mutex>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "nvml.h"
#include "trend.h"
#include "watch.h"

namespace {

using gpu::Nvml;
using gpu::NvmlError;
using gpu::Problem;

int failures = 0;
std::string library;
std::string scratch;

void expect(bool right, const std::string& what) {
  if (right) return;
  ++failures;
  std::fprintf(stderr, "FAILED: %s\n", what.c_str());
}

void expect_problem(Problem problem, const std::string& what, const std::function<void()>& call) {
  try {
    call();
    expect(false, what + ": nothing was thrown");
  } catch (const NvmlError& error) {
    expect(error.problem() == problem,
           what + ": got " + gpu::problem_name(error.problem()) + " " + error.what());
  }
}

void write(const std::string& path, const std::string& text) {
  // Renamed into place: no thread reads half of it.
  std::ofstream(path + ".new") << text;
  std::rename((path + ".new").c_str(), path.c_str());
}

// The script is read by the first init, so no other Nvml may be open.
std::shared_ptr<Nvml> open_with(const std::string& script) {
  const std::string path = scratch + "/script";
  write(path, script);
  setenv("LAZYGRAPH_FAKE_NVML", path.c_str(), 1);
  return Nvml::open(library);
}

const char* news_name(gpu::TrendNews news) {
  switch (news) {
    case gpu::TrendNews::kNone:
      return "-";
    case gpu::TrendNews::kBelow:
      return "below";
    case gpu::TrendNews::kAbove:
      return "above";
    case gpu::TrendNews::kDraining:
      return "draining";
  }
  return "?";
}

void test_trend(const std::string& path) {
  std::ifstream file(path);
  gpu::Trend trend{gpu::TrendOptions{}};
  int cases = 0;
  std::string name;
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string first;
    if (!(words >> first) || first[0] == '#') continue;
    if (first == "case") {
      words >> name;
      gpu::TrendOptions options;
      for (std::string pair; words >> pair;) {
        const double value = std::stod(pair.substr(pair.find('=') + 1));
        if (pair.starts_with("below=")) options.below_bytes = static_cast<std::uint64_t>(value);
        if (pair.starts_with("hysteresis="))
          options.hysteresis_bytes = static_cast<std::uint64_t>(value);
        if (pair.starts_with("within=")) options.within_seconds = value;
      }
      trend = gpu::Trend(options);
      ++cases;
      continue;
    }
    std::uint64_t free = 0;
    std::string news;
    std::string predicted;
    words >> free >> news >> predicted;
    const gpu::TrendReport report = trend.observe(std::stod(first), free);
    expect(news == news_name(report.news), name + " at " + first + ": " + news_name(report.news));
    expect((predicted == "-") == !report.seconds_to_exhaustion.has_value(),
           name + " at " + first + ": prediction");
    if (predicted != "-" && report.seconds_to_exhaustion) {
      expect(std::abs(*report.seconds_to_exhaustion / std::stod(predicted) - 1) < 1e-6,
             name + " at " + first);
    }
  }
  expect(cases >= 10, "the trend cases were found at " + path);
}

void test_failures() {
  expect_problem(Problem::kNotFound, "no library",
                 [] { Nvml::open("/nonexistent/libnvidia-ml.so.1"); });
  expect_problem(Problem::kUnusable, "another library", [] { Nvml::open("libm.so.6"); });
  expect_problem(Problem::kDriverNotLoaded, "init 9", [] { open_with("init 9"); });
  expect_problem(Problem::kVersionMismatch, "init 18", [] { open_with("init 18"); });
  expect_problem(Problem::kNoPermission, "init 4", [] { open_with("init 4"); });
  expect_problem(Problem::kInitFailed, "init 999", [] { open_with("init 999"); });
  expect_problem(Problem::kCallFailed, "count 999", [] { open_with("count 999")->devices(); });
  expect_problem(Problem::kUnknownDevice, "unknown", [] { open_with("")->read("GPU-a"); });
  const auto unplugged = open_with("device GPU-a total=100 free=60,!15,gone");
  expect(unplugged->read("GPU-a").free == 60, "before it is unplugged");
  expect_problem(Problem::kGpuLost, "lost", [&] { unplugged->read("GPU-a"); });
  expect_problem(Problem::kGpuLost, "gone for good", [&] { unplugged->read("GPU-a"); });
}

void test_devices() {
  std::string many;
  for (int pid = 1; pid <= 100; ++pid)
    many += "process GPU-a pid=" + std::to_string(pid) + " used=1\n";
  const auto nvml = open_with(
      "device GPU-a total=1000 reserved=100 free=700 cc=9.0 mig=1\n"
      "instance MIG-a total=400 free=300\n" +
      many + "device GPU-b handle=15\n" +
      "device GPU-c total=5 free=5\nprocess GPU-c pid=7 used=none graphics=1\n");
  const std::vector<gpu::Device> devices = nvml->devices();
  expect(devices.size() == 4, "four entries");
  if (devices.size() != 4) return;
  expect(devices[0].mig == gpu::Mig::kPartitioned && devices[0].memory->used == 200,
         "the whole GPU");
  expect(devices[0].processes->size() == 100, "more processes than the first call has room for");
  expect(devices[1].parent_uuid == "GPU-a" && devices[1].memory->free == 300, "its instance");
  expect(devices[2].fault.has_value() && devices[2].index == 1, "a lost device keeps its place");
  expect(devices[3].processes->at(0).graphics && !devices[3].processes->at(0).used_bytes,
         "unknown use");
}

void test_old_driver() {
  const auto old =
      open_with("without nvmlDeviceGetMemoryInfo_v2\ndevice GPU-a total=10 reserved=2 free=3");
  expect(old->read("GPU-a").used == 7 && !old->read("GPU-a").reserved, "a driver without v2");
}

// Collects events and lets the test wait for one.
class Events {
 public:
  bool take(const gpu::WatchEvent& event) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (refusals_ > 0) {
      --refusals_;
      return false;
    }
    events_.push_back(event);
    wake_.notify_all();
    return true;
  }
  void refuse(int times) { refusals_ = times; }
  gpu::WatchEvent nth(std::size_t n) {
    std::unique_lock<std::mutex> lock(mutex_);
    wake_.wait(lock, [&] { return events_.size() > n; });
    return events_[n];
  }

 private:
  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<gpu::WatchEvent> events_;
  int refusals_ = 0;
};

gpu::WatchOptions watch_options(std::uint64_t below) {
  return {"GPU-a", std::chrono::milliseconds(1), {below, 10, 0}};
}

void test_watch_events() {
  const auto nvml = open_with("device GPU-a total=1000 free=500,99,100,110,!15,!15,gone,500");
  Events events;
  std::atomic<int> ended{0};
  {
    gpu::Watch watch(
        nvml, watch_options(100), [&](const auto& e) { return events.take(e); }, [&] { ++ended; });
    expect(events.nth(0).news == gpu::WatchNews::kBelow, "below");
    expect(events.nth(0).memory.free == 99, "the reading that fell below");
    expect(events.nth(1).news == gpu::WatchNews::kAbove, "above");
    expect(events.nth(2).news == gpu::WatchNews::kFault, "fault");
    expect(events.nth(2).fault->problem == Problem::kGpuLost, "the fault's reason");
    // "gone" answers the look-up by name: another result, so another event.
    expect(events.nth(3).news == gpu::WatchNews::kFault, "gone");
    expect(ended == 0, "a fault ends nothing");
  }
  expect(ended == 1, "the end is told once");
}

void test_watch_merges() {
  const auto nvml = open_with("device GPU-a total=1000 free=50,500,50,500");
  Events events;
  events.refuse(3);
  gpu::Watch watch(nvml, watch_options(100), [&](const auto& e) { return events.take(e); }, [] {});
  const gpu::WatchEvent event = events.nth(0);
  expect(event.news == gpu::WatchNews::kAbove && event.replaced == 3,
         "the newest news gets through");
}

void test_loops() {
  const auto nvml = open_with("device GPU-a total=1000 free=500");
  std::uint64_t sum = 0;
  for (int i = 0; i < 100000; ++i) sum += nvml->read("GPU-a").free;
  expect(sum == 50000000, "100,000 readings");
  for (int i = 0; i < 2000; ++i) {
    gpu::Watch watch(nvml, watch_options(1000), [](const auto&) { return false; }, [] {});
    if (i % 2 == 0) watch.request_stop();
  }
  for (int i = 0; i < 200; ++i) open_with("device GPU-a total=1000 free=500")->devices();

  // Readings from many threads, with a survey in between that renews the handles.
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 2000; ++i) nvml->read("GPU-a");
    });
  }
  for (int i = 0; i < 200; ++i) nvml->devices();
  for (std::thread& thread : threads) thread.join();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fprintf(stderr, "usage: driver FAKE_NVML_LIBRARY TREND_CASES SCRATCH_FOLDER\n");
    return 2;
  }
  library = argv[1];
  scratch = argv[3];
  test_trend(argv[2]);
  test_failures();
  test_devices();
  test_old_driver();
  test_watch_events();
  test_watch_merges();
  test_loops();
  if (failures == 0) std::printf("native driver: all passed\n");
  return failures == 0 ? 0 : 1;
}
