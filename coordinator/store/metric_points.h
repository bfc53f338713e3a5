// The history of a job's metrics as a store gives it, and what a reader wants of it. To parse a long one takes far
// longer than to read it, so that is left to whoever asks, on a thread of its own if it has one.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "proto/v1/coordinator.pb.h"

namespace trainyard::coordinator {

// v1::MetricPoint as bytes, in order of step.
using StoredPoints = std::vector<std::string>;

struct PointChoice {
  std::vector<std::string> names = {};  // empty: all; else points without any of them are left out
  int max_points = 0;                   // 0: all; else spread evenly, the newest always among them
};

// DataLoss if a point cannot be read. Without names only the points chosen are parsed. For any thread.
absl::StatusOr<std::vector<v1::MetricPoint>> ChoosePoints(const StoredPoints& stored, const PointChoice& choice);

}  // namespace trainyard::coordinator
