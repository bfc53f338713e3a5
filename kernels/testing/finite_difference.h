// Gradients by central differences of a double reference: what a backward op is checked against.
#pragma once

#include <functional>
#include <vector>

namespace trainyard::kernels::testing {

// d loss / d x[i] for every i, error about 1e-9 for smooth losses around 1. `loss` reads x, which is restored.
// A backward op with upstream gradient dy is checked with loss(x) = sum_i dy[i] * Forward(x)[i].
std::vector<double> FiniteDifferences(std::vector<double>& x, const std::function<double()>& loss);

// sum_i a[i] * b[i].
double Dot(const std::vector<double>& a, const std::vector<double>& b);

}  // namespace trainyard::kernels::testing
