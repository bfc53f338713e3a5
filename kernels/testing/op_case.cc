#include "kernels/testing/op_case.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "kernels/core/simt/emulator.h"
#include "kernels/testing/test_stream.h"

namespace trainyard::kernels::testing {

std::vector<OpCase> OpCases(const std::vector<std::vector<int64_t>>& shapes) {
  std::vector<OpCase> cases;
  for (DType dtype : {DType::kF32, DType::kBF16}) {
    for (const std::vector<int64_t>& shape : shapes) cases.push_back({dtype, shape});
  }
  return cases;
}

std::string OpCaseName(const ::testing::TestParamInfo<OpCase>& info) {
  std::string name(Name(info.param.dtype));
  for (size_t axis = 0; axis < info.param.shape.size(); ++axis) {
    name += (axis == 0 ? "_" : "x") + std::to_string(info.param.shape[axis]);
  }
  return name;
}

std::ostream& operator<<(std::ostream& out, const OpCase& op_case) {
  return out << OpCaseName(::testing::TestParamInfo<OpCase>(op_case, 0));
}

Tolerance ToleranceFor(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return {.absolute = 2e-6, .relative = 2e-6};
    case DType::kBF16:
      return {.absolute = 2e-6, .relative = 1.0 / 256 + 2e-6};
    default:
      TY_CHECK(false && "no tolerance for this dtype");
      return {};
  }
}

Tolerance ToleranceForSum(DType dtype, int64_t terms) {
  Tolerance tolerance = ToleranceFor(dtype);
  tolerance.absolute += 3e-7 * std::sqrt(static_cast<double>(std::max<int64_t>(terms, 1)));
  return tolerance;
}

void ExpectSameBitsForAnyThreadCount(const std::function<std::vector<uint8_t>(Stream& stream)>& body) {
  TestStream one(1);
  const std::vector<uint8_t> expected = body(one);
  EXPECT_FALSE(expected.empty()) << "nothing compared";
  for (int threads : {2, 3}) {
    TestStream stream(threads);
    // On an emulated device it is the order of a kernel's threads and blocks that must not show.
    simt::SetOrder(threads == 2 ? simt::Order::kBackward : simt::Order::kForward);
    EXPECT_TRUE(body(stream) == expected) << threads << " threads give other bits than one";
    simt::SetOrder(simt::Order::kForward);
  }
}

}  // namespace trainyard::kernels::testing
