// A scheme that can tell, of chosen forwards, which share of the elements its gradient masks stop (mask_probe.h): for
// the metrics of evaluation steps. While nothing is counted it is the scheme itself.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "worker/linear/linear_scheme.h"
#include "worker/linear/mask_probe.h"

namespace trainyard::linear {

// Counting is for one thread of callers; the rest is as thread-safe as the scheme.
class MaskCountingScheme : public LinearScheme {
 public:
  // From here to StopCounting, forwards are counted, from zero.
  virtual void StartCounting() = 0;
  virtual void StopCounting() = 0;

  // Adds what was counted last, over all layers of a type: masked_fraction_attention (qkv, output) and
  // masked_fraction_mlp (gate_up, down), each with _inputs and _weights. Operands without a mask, and layers that were
  // never computed, add none.
  virtual void AddMetrics(std::map<std::string, double>* metrics) const = 0;
};

// `probe` is of the scheme; layers that match `exclude` pass it by.
std::unique_ptr<MaskCountingScheme> MakeMaskCountingScheme(std::unique_ptr<LinearScheme> scheme,
                                                           std::unique_ptr<MaskProbe> probe,
                                                           std::vector<std::string> exclude);

}  // namespace trainyard::linear
