// When a run of free-memory readings is worth a call-back. Pure: time and readings come in.
// src/gpu/trend.ts holds the same rules for the nvidia-smi reader, and both are tested on
// test/gpu-memory/trend-cases.txt.

#ifndef LAZYGRAPH_NATIVE_TREND_H_
#define LAZYGRAPH_NATIVE_TREND_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>

namespace gpu {

struct TrendOptions {
  // Below this many free bytes is news; 0 turns the threshold off.
  std::uint64_t below_bytes = 0;
  // How far free memory has to rise over the threshold before a second fall is news again.
  std::uint64_t hysteresis_bytes = 0;
  // A predicted exhaustion within so many seconds is news; 0 turns the prediction's news off.
  double within_seconds = 0;
};

enum class TrendNews { kNone, kBelow, kAbove, kDraining };

// What one reading changed, and the slope behind it.
struct TrendReport {
  TrendNews news = TrendNews::kNone;
  std::optional<double> bytes_per_second;
  std::optional<double> seconds_to_exhaustion;
};

class Trend {
 public:
  explicit Trend(const TrendOptions& options) : options_(options) {}

  TrendReport observe(double seconds, std::uint64_t free_bytes);
  // Forgets the slope, after a gap in the readings.
  void restart();

 private:
  struct Point {
    double seconds;
    double free_bytes;
  };
  static constexpr std::size_t kPointsMax = 16;
  // Two points always make a line; four that fall begin to mean something.
  static constexpr std::size_t kPointsMin = 4;

  std::optional<double> slope() const;

  TrendOptions options_;
  std::array<Point, kPointsMax> points_{};
  std::size_t next_ = 0;
  std::size_t count_ = 0;
  bool below_ = false;
  bool draining_ = false;
};

}  // namespace gpu

#endif  // LAZYGRAPH_NATIVE_TREND_H_
