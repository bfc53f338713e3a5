// Scaling laws of the final validation loss with efficiencies of compressed training (docs/methods/scaling-laws.md).
//
//   F2 (Quartet, arXiv:2505.14669):   L = (A / (N effN)^alpha + B / (D effD)^beta)^gamma + E
//   F1 (Chinchilla with efficiency):  the same with gamma = 1
//
// N: parameters without embeddings; D: training tokens; effN and effD are 1 for the uncompressed baseline. All is
// computed from logarithms by log-sum-exp, so no exponent that a fit tries can overflow.
#pragma once

#include <array>
#include <optional>

namespace trainyard::scaling {

enum class Form { kChinchilla, kOuterExponent };

struct Law {
  double a = 0;  // ln A
  double alpha = 0;
  double b = 0;  // ln B
  double beta = 0;
  double e = 0;  // ln E
  double gamma = 1;
};

inline constexpr int kLawParameters = 6;

// Those that a form fits: the first 5 or all 6 of a, alpha, b, beta, e, gamma.
inline int ParameterCount(Form form) {
  return form == Form::kChinchilla ? 5 : kLawParameters;
}

// Of ln L with respect to a, alpha, b, beta, e, gamma; ln effN; ln effD.
struct Gradient {
  std::array<double, kLawParameters> law = {};
  double log_eff_parameters = 0;
  double log_eff_tokens = 0;
};

// What a method makes of N and D.
struct Multipliers {
  double parameters = 1;  // effN > 0
  double tokens = 1;      // effD > 0
};

// ln L at ln(N effN) and ln(D effD). `gradient` may be null.
double LogLoss(const Law& law, double log_parameters, double log_tokens, Gradient* gradient = nullptr);

// L(N effN, D effD); all > 0.
double Loss(const Law& law, double parameters, double tokens, const Multipliers& multipliers = {});

// The effN that one run says by itself: (A / ((L - E)^(1/gamma) - B / D^beta))^(1/alpha) / N. Nothing if the loss is
// one that no number of parameters reaches at these tokens.
std::optional<double> InvertForParameters(const Law& law, double parameters, double tokens, double loss);

}  // namespace trainyard::scaling
