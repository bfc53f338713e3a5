// Generated images side by side in one PNG file.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/core/tensor.h"

namespace trainyard::data {

// images: f32 (count, channels 1 or 3, height, width) in [-1, 1] (beyond is cut off, NaN is black). Row by row,
// `columns`
// >= 1 a row, 2 dark pixels between neighbours. The PNG's bytes are a function of the pixels.
absl::StatusOr<std::string> EncodePngGrid(const kernels::TensorView& images, int columns);

// The same into a file, atomically; its folder must exist.
absl::Status WritePngGrid(const std::string& path, const kernels::TensorView& images, int columns);

}  // namespace trainyard::data
