// The FFT of the CPU's code: eight sequences side by side.
#pragma once

#include "kernels/transform/dct.h"
#include "kernels/transform/dct_formula.h"
#include "kernels/transform/vector8.h"

namespace trainyard::kernels::internal {

// Eight complex numbers, one of each transform that is done together.
using Complex8 = ComplexOf<Vector8>;

// Complex8 of scratch that the pass with the largest factor needs.
int64_t ScratchLength(const DctPlan& plan);

// The FFT of length plan.fft_length() of eight sequences side by side. `a` holds the input, and a or b, whichever is
// returned, the result; the other's contents are lost. `scratch`: ScratchLength elements.
Complex8* Fft8(const DctPlan& plan, Complex8* a, Complex8* b, Complex8* scratch);

}  // namespace trainyard::kernels::internal
