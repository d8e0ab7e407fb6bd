#include "trend.h"

namespace gpu {

TrendReport Trend::observe(double seconds, std::uint64_t free_bytes) {
  points_[next_] = Point{seconds, static_cast<double>(free_bytes)};
  next_ = (next_ + 1) % kPointsMax;
  if (count_ < kPointsMax) ++count_;

  TrendReport report;
  report.bytes_per_second = slope();
  if (report.bytes_per_second && *report.bytes_per_second < 0) {
    report.seconds_to_exhaustion = static_cast<double>(free_bytes) / -*report.bytes_per_second;
  }

  const bool soon = options_.within_seconds > 0 && report.seconds_to_exhaustion &&
                    *report.seconds_to_exhaustion < options_.within_seconds;
  const bool far =
      !report.seconds_to_exhaustion || *report.seconds_to_exhaustion > 2 * options_.within_seconds;
  if (soon && !draining_) {
    draining_ = true;
    report.news = TrendNews::kDraining;
  } else if (draining_ && far) {
    draining_ = false;
  }

  // The threshold is checked last because it outranks the prediction, which its report carries.
  if (!below_ && free_bytes < options_.below_bytes) {
    below_ = true;
    report.news = TrendNews::kBelow;
  } else if (below_ && free_bytes >= options_.below_bytes + options_.hysteresis_bytes) {
    below_ = false;
    report.news = TrendNews::kAbove;
  }
  return report;
}

void Trend::restart() {
  next_ = 0;
  count_ = 0;
  draining_ = false;
}

// Least squares over the last readings, in bytes per second.
std::optional<double> Trend::slope() const {
  if (count_ < kPointsMin) return std::nullopt;
  // The order of the points does not matter to the sums, so the ring is read as it lies. Means
  // are taken off first: uptimes squared would eat the precision of small intervals.
  double mean_seconds = 0;
  double mean_bytes = 0;
  for (std::size_t i = 0; i < count_; ++i) {
    mean_seconds += points_[i].seconds / static_cast<double>(count_);
    mean_bytes += points_[i].free_bytes / static_cast<double>(count_);
  }
  double covariance = 0;
  double variance = 0;
  for (std::size_t i = 0; i < count_; ++i) {
    const double seconds = points_[i].seconds - mean_seconds;
    covariance += seconds * (points_[i].free_bytes - mean_bytes);
    variance += seconds * seconds;
  }
  if (variance <= 0) return std::nullopt;
  return covariance / variance;
}

}  // namespace gpu
