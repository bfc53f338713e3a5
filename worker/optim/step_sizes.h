// The step sizes of optimistic dual averaging (methods/qoda.md, 2.5), in f64.
//
// With V_k,s the dual that worker k contributed at step s, V_k,0 = 0, and K workers:
//
//   base        eta_t = gamma_t = scale (1 + sum_{s=1}^{t-1} 1/K^2 sum_k |V_k,s - V_k,s-1|^2)^(-1/2)
//   separated   gamma_t = scale (1 + S_{t-2})^(q - 1/2)
//               eta_t = scale (1 + S_{t-2} + sum_{s<=t-2} |X_s - X_{s+1}|^2)^(-1/2)
//               S_r = sum_{s<=r} 1/K^2 sum_k |V_k,s|^2
//
// The indices are part of the method: eta_{t+1} uses only what every worker knows when it forms X_{t+1}.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "proto/spec/qoda_gan_options.h"

namespace trainyard::optim {

class StepSizes {
 public:
  explicit StepSizes(const spec::QodaDaOptions& options) : options_(options) { Reset(); }

  void Reset();

  // At the end of step t: takes in this step's term, the sum over the workers (divided by K^2) of |V_k,t - V_k,t-1|^2
  // under the base rule and of |V_k,t|^2 under the separated one. Afterwards eta() is eta_{t+1} and gamma()
  // gamma_{t+1}.
  void Advance(double term);

  // Separated rule: |X_t - X_{t+1}|^2, once X_{t+1} has been formed with the rates of the last Advance.
  void AddDrift(double squared_distance) { drift_ += squared_distance; }

  double eta() const { return eta_; }
  double gamma() const { return gamma_; }

  // Exact, in hexadecimal.
  std::string Text() const;
  // DataLoss for a text that Text did not make.
  absl::Status Restore(const std::string& text);

 private:
  const spec::QodaDaOptions options_;
  double sum_ = 0, drift_ = 0;
  double eta_ = 0, gamma_ = 0;
};

}  // namespace trainyard::optim
