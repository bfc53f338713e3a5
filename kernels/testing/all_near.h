// EXPECT_THAT(tensor.ToDoubles(), AllNear(expected, ToleranceFor(dtype))): elementwise closeness; a failure names the
// worst element.
#pragma once

#include <vector>

#include "gmock/gmock.h"
#include "kernels/testing/op_case.h"

namespace trainyard::kernels::testing {

// A NaN on either side is far from everything. An infinity is near the same infinity only.
::testing::Matcher<const std::vector<double>&> AllNear(std::vector<double> expected, Tolerance tolerance);

}  // namespace trainyard::kernels::testing
