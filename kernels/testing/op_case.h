// The cases every op is tested on: storage dtype x shape, with one table of tolerances, and the check that results do
// not depend on the number of threads.
#pragma once

#include <cstdint>
#include <functional>
#include <ostream>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/core/dtype.h"
#include "kernels/core/stream.h"

namespace trainyard::kernels::testing {

struct OpCase {
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;  // what the extents mean is the test's affair
  int64_t dim(size_t axis) const { return shape.at(axis); }
};

// Every shape with f32 and with bf16 storage.
std::vector<OpCase> OpCases(const std::vector<std::vector<int64_t>>& shapes);

// "f32_3x64", for INSTANTIATE_TEST_SUITE_P.
std::string OpCaseName(const ::testing::TestParamInfo<OpCase>& info);
std::ostream& operator<<(std::ostream& out, const OpCase& op_case);

// How far a result stored in `dtype` may lie from the double reference computed from the same stored inputs:
//   |actual - expected| <= absolute + relative * |expected|
// f32: rounding of a few dozen operations on values around 1; bf16: half a unit in the 8th bit of the stored result,
// plus the f32 error.
struct Tolerance {
  double absolute = 0;
  double relative = 0;
};
Tolerance ToleranceFor(DType dtype);
// For sums over `terms` products: f32 errors of a sum grow with the square root of its length.
Tolerance ToleranceForSum(DType dtype, int64_t terms);

// Runs `body` with streams of 1, 2 and 3 threads and expects the same bytes from each.
void ExpectSameBitsForAnyThreadCount(const std::function<std::vector<uint8_t>(Stream& stream)>& body);

}  // namespace trainyard::kernels::testing
