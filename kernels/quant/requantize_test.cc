#include "kernels/quant/requantize.h"

#include "gtest/gtest.h"
#include "kernels/quant/abs_max.h"
#include "kernels/testing/host_tensor.h"
#include "kernels/testing/op_case.h"
#include "kernels/testing/test_stream.h"
#include "kernels/transform/hadamard.h"

namespace trainyard::kernels {
namespace {

using testing::HostTensor;

constexpr int64_t kRows = 256, kCols = 96;
constexpr PhiloxKey kRandom{.seed = 5, .purpose = kRandomTest};

// A saved operand: codes and scales of the forward.
struct Saved {
  explicit Saved(bool is_mx)
      : packed(DType::kU8, {kRows, kCols / 2}),
        scales(is_mx ? DType::kU8 : DType::kF8E4M3, {kRows, kCols / (is_mx ? 32 : 16)}),
        values(DType::kF32, {kRows, kCols}) {
    testing::TestStream stream(1);
    const HostTensor x = HostTensor::Normal(DType::kF32, {kRows, kCols}, 3);
    const HostTensor amax(DType::kF32, {1}), tensor_scale(DType::kF32, {1});
    if (is_mx) {
      MxQuantize({.v = x, .format = {}, .packed = packed, .scales = scales, .values = values}, stream);
      return;
    }
    AbsMax({.x = x, .y = amax}, stream);
    NvQuantize({.x = x,
                .amax = amax,
                .format = {},
                .tensor_scale = tensor_scale,
                .packed = packed,
                .scales = scales,
                .values = values},
               stream);
  }
  HostTensor packed, scales, values;
};

struct Result {
  explicit Result(bool is_mx)
      : packed(HostTensor(DType::kU8, {kCols, kRows / 2})),
        scales(is_mx ? DType::kU8 : DType::kF8E4M3, {kCols, kRows / (is_mx ? 32 : 16)}),
        tensor_scale(DType::kF32, {1}),
        values(HostTensor::Filled(DType::kF32, {kCols, kRows}, 9)) {}
  std::vector<uint8_t> Bytes() const {
    std::vector<uint8_t> all;
    for (const HostTensor* part : {&packed, &scales, &tensor_scale, &values}) {
      const std::vector<uint8_t> bytes = part->Bytes();
      all.insert(all.end(), bytes.begin(), bytes.end());
    }
    return all;
  }
  HostTensor packed, scales, tensor_scale, values;
};

// The steps one by one, the transpose element by element.
std::vector<uint8_t> Expected(const Saved& saved, int64_t group, const HostTensor& signs,
                              const std::variant<MxFormat, NvFormat>& format) {
  testing::TestStream stream(1);
  const HostTensor v(DType::kF32, {kCols, kRows}), amax(DType::kF32, {1});
  for (int64_t r = 0; r < kRows; ++r) {
    for (int64_t c = 0; c < kCols; ++c) v.as<float>()[c * kRows + r] = saved.values.as<float>()[r * kCols + c];
  }
  if (group != 0) Hadamard({.x = v, .y = v, .group = group, .signs = signs}, stream);
  const Result result(std::holds_alternative<MxFormat>(format));
  if (const auto* mx = std::get_if<MxFormat>(&format)) {
    MxQuantize({.v = v,
                .format = *mx,
                .random = kRandom,
                .packed = result.packed,
                .scales = result.scales,
                .values = result.values},
               stream);
    return result.Bytes();
  }
  AbsMax({.x = v, .y = amax}, stream);
  NvQuantize({.x = v,
              .amax = amax,
              .format = std::get<NvFormat>(format),
              .random = kRandom,
              .tensor_scale = result.tensor_scale,
              .packed = result.packed,
              .scales = result.scales,
              .values = result.values},
             stream);
  return result.Bytes();
}

// quartet2.md 5.9: from codes and from values, to separate values and in place.
TEST(RequantizeTest, EqualsItsSteps) {
  const MxFormat nearest{.scale = MxScale::kAbsMax};
  const MxFormat stochastic{.scale = MxScale::kAbsMax, .rounding = Rounding::kStochastic};
  const NvFormat eden{.method = NvMethod::kMsEden}, eden128{.method = NvMethod::kMsEden, .eden_group = 128};
  const NvFormat random{.method = NvMethod::kStochastic};
  for (const std::variant<MxFormat, NvFormat>& format :
       {std::variant<MxFormat, NvFormat>(nearest), {stochastic}, {eden}, {eden128}, {random}}) {
    const bool is_mx = std::holds_alternative<MxFormat>(format);
    const Saved saved(is_mx);
    for (const int64_t group : {0, 32, 128}) {
      HostTensor signs(DType::kF32, {group});
      Stream one(1);
      RandomSigns({.signs = signs, .random = kRandom}, one);
      const std::vector<uint8_t> expected = Expected(saved, group, signs, format);
      testing::ExpectSameBitsForAnyThreadCount([&](Stream& stream) {
        const HostTensor dequantized(DType::kBF16, {kRows, kCols}), amax(DType::kF32, {1});
        HostTensor rotated(DType::kF32, {kCols, kRows});
        const Result result(is_mx);
        RequantizeArgs args{.packed = saved.packed,
                            .scales = saved.scales,
                            .group = group,
                            .signs = group == 0 ? TensorView() : signs.view(),
                            .format = format,
                            .random = kRandom,
                            .dequantized = dequantized,
                            .rotated = rotated,
                            .amax = amax,
                            .tensor_scale = result.tensor_scale,
                            .result_packed = result.packed,
                            .result_scales = result.scales,
                            .result_values = result.values};
        Requantize(args, stream);
        EXPECT_EQ(result.Bytes(), expected);
        args.packed = {};
        args.scales = {};
        args.operand = saved.values;
        args.result_values = rotated;
        Requantize(args, stream);
        EXPECT_EQ(rotated.Bytes(), result.values.Bytes());
        return result.Bytes();
      });
    }
  }
}

}  // namespace
}  // namespace trainyard::kernels
