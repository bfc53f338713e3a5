#include "kernels/codec/sign_mean.h"

#include <cmath>
#include <limits>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/testing/host_tensor.h"
#include "kernels/testing/test_stream.h"

namespace trainyard::kernels {
namespace {

using testing::HostTensor;

std::vector<uint8_t> Encode(const std::vector<float>& x, int64_t bucket_size, int threads = 1) {
  testing::TestStream stream(threads);
  const int64_t n = static_cast<int64_t>(x.size());
  const SignMeanFormat format{bucket_size};
  const HostTensor wire(DType::kU8, {format.WireOf(n).bytes()});
  const HostTensor values(DType::kF32, {n});
  std::copy(x.begin(), x.end(), values.as<float>());
  SignMeanEncode({.x = values, .wire = wire, .format = format}, stream);
  return wire.Bytes();
}

std::vector<float> RoundTrip(const std::vector<float>& x, int64_t bucket_size, int threads = 1) {
  testing::TestStream stream(threads);
  const int64_t n = static_cast<int64_t>(x.size());
  const std::vector<uint8_t> bytes = Encode(x, bucket_size, threads);
  const HostTensor wire(DType::kU8, {static_cast<int64_t>(bytes.size())});
  std::copy(bytes.begin(), bytes.end(), wire.as<uint8_t>());
  const HostTensor y = HostTensor::Filled(DType::kF32, {n}, 1e9);
  SignMeanDecode({.wire = wire, .y = y, .format = {bucket_size}}, stream);
  return {y.as<float>(), y.as<float>() + n};
}

std::vector<float> Normal(int64_t n, uint64_t seed) {
  const HostTensor x = HostTensor::Normal(DType::kF32, {n}, seed);
  return {x.as<float>(), x.as<float>() + n};
}

TEST(SignMeanTest, KnownBytes) {
  // mean |x| = 2; signs, lowest bit first: 0 1 0 1 0.
  EXPECT_EQ(Encode({1, -2, 3, -4, 0}, 64), (std::vector<uint8_t>{0, 0, 0, 0x40, 0x0A, 0, 0, 0, 0, 0, 0, 0}));
  EXPECT_EQ(RoundTrip({1, -2, 3, -4, 0}, 64), (std::vector<float>{2, -2, 2, -2, 2}));
}

TEST(SignMeanTest, EveryBucketHasItsOwnMean) {
  for (const int64_t n : {1, 63, 64, 65, 200, 1000}) {
    const std::vector<float> x = Normal(n, 3);
    const std::vector<float> y = RoundTrip(x, 64);
    for (int64_t begin = 0; begin < n; begin += 64) {
      const int64_t end = std::min(n, begin + 64);
      double sum = 0;
      for (int64_t i = begin; i < end; ++i) sum += std::fabs(x[static_cast<size_t>(i)]);
      const float mean = static_cast<float>(sum / static_cast<double>(end - begin));
      for (int64_t i = begin; i < end; ++i) {
        const size_t at = static_cast<size_t>(i);
        ASSERT_FLOAT_EQ(y[at], x[at] < 0 ? -mean : mean);
      }
    }
  }
  EXPECT_EQ(RoundTrip(Normal(100'000, 5), 64, 1), RoundTrip(Normal(100'000, 5), 64, 3));
}

// quantized-comm.md 2.8: c = 1 - 2/pi = .3634 < 1, which error feedback needs; maxmin with 1 bit has 5.4 or 8.3.
TEST(SignMeanTest, ContractsGaussianDataByTheClosedForm) {
  const std::vector<float> x = Normal(512 * 1000, 7);
  const std::vector<float> y = RoundTrip(x, 512);
  double error = 0, norm = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    error += std::pow(static_cast<double>(x[i]) - y[i], 2);
    norm += std::pow(static_cast<double>(x[i]), 2);
  }
  EXPECT_NEAR(error / norm / (1 - 2 / M_PI), 1, 0.01);
}

TEST(SignMeanTest, SameBitsAsOnTheCpu) {
  for (const int64_t n : {0, 1, 9, 65, 1001}) {
    for (const int64_t shift : {0, 1, 4}) {
      const HostTensor all = HostTensor::Normal(DType::kF32, {n + shift}, 47);
      if (n > 600) {
        all.as<float>()[shift + 70] = std::nanf("");
        all.as<float>()[shift + 570] = -HUGE_VALF;
      }
      testing::ExpectSameBitsAsOnCpu([&](Stream& stream) {
        const SignMeanFormat format{64};
        const int64_t bytes = format.WireOf(n).bytes();
        const HostTensor memory(DType::kU8, {bytes + shift});
        const TensorView wire = memory.view().Slice(shift, bytes);
        const HostTensor y = HostTensor::Filled(DType::kF32, {n + shift}, 7);
        SignMeanEncode({.x = all.view().Slice(shift, n), .wire = wire, .format = format}, stream);
        SignMeanDecode({.wire = wire, .y = y.view().Slice(shift, n), .format = format}, stream);
        std::vector<uint8_t> all_bytes = memory.Bytes();
        const std::vector<uint8_t> more = y.Bytes();
        all_bytes.insert(all_bytes.end(), more.begin(), more.end());
        all_bytes.push_back(1);  // so that empty shapes compare something
        return all_bytes;
      });
    }
  }
}

TEST(SignMeanTest, ZerosAndWhatIsNotFinite) {
  const std::vector<float> zeros(200, 0.0f);
  EXPECT_EQ(RoundTrip(zeros, 64), zeros);
  for (const float bad : {std::nanf(""), std::numeric_limits<float>::infinity()}) {
    std::vector<float> x = Normal(200, 9);
    x[100] = bad;
    const std::vector<float> y = RoundTrip(x, 64);
    for (size_t i = 0; i < x.size(); ++i) ASSERT_EQ(std::isnan(y[i]), i / 64 == 1) << i;
  }
}

}  // namespace
}  // namespace trainyard::kernels
