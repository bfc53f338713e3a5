#include "kernels/testing/all_near.h"

#include <cmath>
#include <ostream>
#include <utility>

namespace trainyard::kernels::testing {
namespace {

class AllNearMatcher {
 public:
  using is_gtest_matcher = void;

  AllNearMatcher(std::vector<double> expected, Tolerance tolerance)
      : expected_(std::move(expected)), tolerance_(tolerance) {}

  bool MatchAndExplain(const std::vector<double>& actual, ::testing::MatchResultListener* listener) const {
    if (actual.size() != expected_.size()) {
      *listener << "which has " << actual.size() << " elements, not " << expected_.size();
      return false;
    }
    size_t far_count = 0;
    size_t worst = 0;
    double worst_excess = 0;
    for (size_t i = 0; i < actual.size(); ++i) {
      if (actual[i] == expected_[i]) continue;
      const double allowed = tolerance_.absolute + tolerance_.relative * std::fabs(expected_[i]);
      const double excess = std::fabs(actual[i] - expected_[i]) / allowed;
      if (excess <= 1) continue;
      ++far_count;
      if (far_count == 1 || excess > worst_excess) {
        worst = i;
        worst_excess = excess;
      }
    }
    if (far_count == 0) return true;
    *listener << far_count << " of " << actual.size() << " elements are too far, worst at [" << worst
              << "]: " << actual[worst] << " instead of " << expected_[worst] << ", " << worst_excess
              << " times the tolerance";
    return false;
  }

  void DescribeTo(std::ostream* out) const {
    *out << "is near the reference (absolute " << tolerance_.absolute << ", relative " << tolerance_.relative << ")";
  }
  void DescribeNegationTo(std::ostream* out) const { *out << "is not near the reference"; }

 private:
  std::vector<double> expected_;
  Tolerance tolerance_;
};

}  // namespace

::testing::Matcher<const std::vector<double>&> AllNear(std::vector<double> expected, Tolerance tolerance) {
  return AllNearMatcher(std::move(expected), tolerance);
}

}  // namespace trainyard::kernels::testing
