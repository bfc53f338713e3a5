// Efficiencies from formulas instead of trainings: what a representation can hold, and sparsity.
#pragma once

#include <vector>

namespace trainyard::scaling {

// Least mean squared error of N(0, 1) rounded to the nearest of c * levels, over the scale c. `levels` are increasing,
// at least 2 of them, symmetric around 0.
double GaussianError(const std::vector<double>& levels);

// The same for 2^bits evenly spaced levels without zero: 1 - 2/pi for 1 bit. bits: 1..12.
double UniformGridError(int bits);

// The same for FP4 E2M1: 0, 0.5, 1, 1.5, 2, 3, 4, 6 with both signs.
double Fp4Error();

// Capacity (arXiv:2506.01863): rho = L0 tanh(F log_{1/4}(error))^C, a prediction of effN. 1 - rho is what is lost.
// Defaults: the paper's fit for Llama on C4. rho multiplies over weights and activations.
struct CapacityLaw {
  double l0 = 1.0;
  double f = 0.41;
  double c = 1.39;
};
double Capacity(double gaussian_error, const CapacityLaw& law = {});  // error in (0, 1); 0 outside: nothing is held

// Sparsity (arXiv:2309.08520): with S the fraction of zeros, loss depends on N through (aS (1-S)^bS + cS) Nnz^-bN in
// non-zero parameters Nnz. So a sparse model of Nnz is worth a dense one of m(S) Nnz, and of a dense count N, eff(S) N.
struct SparsityLaw {
  double a = 0;  // aS
  double b = 0;  // bS
  double c = 0;  // cS
  double n = 0;  // bN > 0
};
double SparseMultiplier(const SparsityLaw& law, double sparsity);  // m(S) of non-zero parameters; sparsity in [0, 1)
double SparseEfficiency(const SparsityLaw& law, double sparsity);  // eff(S) = (1 - S) m(S)

}  // namespace trainyard::scaling
