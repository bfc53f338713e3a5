// Kernel ridge regression from landmarks to all samples (influence-distillation.md 2.7):
//
//   K_ij = exp(-|e_i - e_j|^2 / (2 sigma^2))  or  e_i . e_j
//   coefficients = (K_LL + damping mean(diag K_LL) I)^-1 p_L,   prediction(e) = k(e, landmarks) coefficients
//
// sigma is the median distance of the first at most 1000 landmarks unless given, and at least 1e-6. All in f64. A
// prediction depends on its embedding and the fit alone, not on which others are predicted beside it or on threads.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/core/stream.h"
#include "proto/spec/select_data_options.h"

namespace trainyard::influence {

class KernelRegression {
 public:
  // landmarks: (count, width) f32; values: (count, columns). InvalidArgument if there is no landmark or a number is not
  // finite; FailedPrecondition if the damped kernel is not positive definite (a linear kernel with little damping).
  static absl::StatusOr<KernelRegression> Fit(const spec::SelectionPropagationOptions& options,
                                              const std::vector<float>& landmarks, int64_t width,
                                              std::vector<double> values, int64_t columns);
  // A fit that was made before: sigma() and coefficients() of it.
  static KernelRegression FromFit(spec::RegressionKernel kernel, double sigma, const std::vector<float>& landmarks,
                                  int64_t width, std::vector<double> coefficients, int64_t columns);

  // out: (rows, columns), overwritten; embeddings: (rows, width).
  void Predict(const float* embeddings, int64_t rows, double* out, kernels::Stream& stream) const;

  double sigma() const { return sigma_; }
  const std::vector<double>& coefficients() const { return coefficients_; }  // (count, columns)

 private:
  KernelRegression(spec::RegressionKernel kernel, const std::vector<float>& landmarks, int64_t width);
  // Kernel values of `rows` embeddings in f64 against all landmarks; products (rows, count) come in as e . landmark.
  void KernelOf(const double* embeddings, int64_t rows, double* products) const;

  spec::RegressionKernel kernel_;
  int64_t width_ = 0, count_ = 0, columns_ = 0;
  double sigma_ = 1;
  std::vector<double> landmarks_;  // (count, width)
  std::vector<double> squares_;    // of the landmarks' norms
  std::vector<double> coefficients_;
};

}  // namespace trainyard::influence
