#include "scaling/law.h"

#include <algorithm>
#include <cmath>

namespace trainyard::scaling {
namespace {

// ln(e^x + e^y).
double LogSumExp(double x, double y) {
  const double high = std::max(x, y);
  return high + std::log1p(std::exp(std::min(x, y) - high));
}

}  // namespace

double LogLoss(const Law& law, double log_parameters, double log_tokens, Gradient* gradient) {
  const double size_term = law.a - law.alpha * log_parameters;
  const double data_term = law.b - law.beta * log_tokens;
  const double inner = LogSumExp(size_term, data_term);
  const double reducible = law.gamma * inner;
  const double log_loss = LogSumExp(reducible, law.e);
  if (gradient == nullptr) return log_loss;
  const double share = std::exp(reducible - log_loss);  // of the loss that is not E
  const double of_size = share * law.gamma * std::exp(size_term - inner);
  const double of_data = share * law.gamma * std::exp(data_term - inner);
  gradient->law = {of_size,      -of_size * log_parameters, of_data, -of_data * log_tokens, std::exp(law.e - log_loss),
                   share * inner};
  gradient->log_eff_parameters = -law.alpha * of_size;
  gradient->log_eff_tokens = -law.beta * of_data;
  return log_loss;
}

double Loss(const Law& law, double parameters, double tokens, const Multipliers& multipliers) {
  return std::exp(LogLoss(law, std::log(parameters) + std::log(multipliers.parameters),
                          std::log(tokens) + std::log(multipliers.tokens)));
}

std::optional<double> InvertForParameters(const Law& law, double parameters, double tokens, double loss) {
  const double reducible = loss - std::exp(law.e);
  if (!(reducible > 0)) return std::nullopt;
  const double size_term = std::pow(reducible, 1 / law.gamma) - std::exp(law.b - law.beta * std::log(tokens));
  if (!(size_term > 0)) return std::nullopt;
  const double log_effective = (law.a - std::log(size_term)) / law.alpha;
  const double eff = std::exp(log_effective - std::log(parameters));
  return std::isfinite(eff) ? std::optional<double>(eff) : std::nullopt;
}

}  // namespace trainyard::scaling
