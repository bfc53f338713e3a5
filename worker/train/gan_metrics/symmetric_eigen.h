// Eigenvalues and eigenvectors of a symmetric matrix, through LAPACK, on one thread: the same bits every time on one
// type of CPU.
#pragma once

#include <cstdint>
#include <vector>

namespace trainyard::train {

// matrix: (size, size), row-major, of which one triangle is read; overwritten with the eigenvectors, one a row, in the
// order of the eigenvalues, which are returned and grow. Finite values only.
std::vector<double> SymmetricEigen(std::vector<double>& matrix, int64_t size);

}  // namespace trainyard::train
