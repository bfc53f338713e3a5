#include "kernels/codec/top_k.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/testing/host_tensor.h"
#include "kernels/testing/test_stream.h"

namespace trainyard::kernels {
namespace {

using testing::HostTensor;

std::vector<float> Normal(int64_t n, uint64_t seed) {
  const HostTensor x = HostTensor::Normal(DType::kF32, {n}, seed);
  return {x.as<float>(), x.as<float>() + n};
}

HostTensor Values(const std::vector<float>& x) {
  const HostTensor values(DType::kF32, {static_cast<int64_t>(x.size())});
  std::copy(x.begin(), x.end(), values.as<float>());
  return values.Copy();
}

std::vector<uint8_t> Encode(const std::vector<float>& x, int64_t k) {
  testing::TestStream stream(1);
  const HostTensor wire(DType::kU8, {TopKBytes(k)});
  const HostTensor workspace(DType::kU8, {kTopKWorkspaceBytes});
  const HostTensor values = Values(x);
  TopKEncode({.x = values, .wire = wire, .k = k, .workspace = workspace}, stream);
  return wire.Bytes();
}

std::vector<float> RoundTrip(const std::vector<float>& x, int64_t k) {
  testing::TestStream stream(1);
  const std::vector<uint8_t> bytes = Encode(x, k);
  const HostTensor wire(DType::kU8, {static_cast<int64_t>(bytes.size())});
  std::copy(bytes.begin(), bytes.end(), wire.as<uint8_t>());
  const HostTensor y = HostTensor::Filled(DType::kF32, {static_cast<int64_t>(x.size())}, 1e9);
  TopKDecode({.wire = wire, .y = y, .k = k}, stream);
  return {y.as<float>(), y.as<float>() + x.size()};
}

// By sorting: larger magnitudes first, of equals the lower index.
std::vector<float> Expected(const std::vector<float>& x, int64_t k) {
  std::vector<size_t> order(x.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return std::fabs(x[a]) > std::fabs(x[b]); });
  std::vector<float> kept(x.size(), 0.0f);
  for (int64_t i = 0; i < k; ++i) kept[order[static_cast<size_t>(i)]] = x[order[static_cast<size_t>(i)]];
  return kept;
}

TEST(TopKTest, CountIsAFunctionOfTheLength) {
  EXPECT_EQ(TopKCount(0, 0.01), 0);
  EXPECT_EQ(TopKCount(1, 0.01), 1);
  EXPECT_EQ(TopKCount(149, 0.01), 1);
  EXPECT_EQ(TopKCount(150, 0.01), 2);
  EXPECT_EQ(TopKCount(100'000, 0.01), 1000);
  EXPECT_EQ(TopKCount(7, 1), 7);
}

TEST(TopKTest, KnownBytes) {
  EXPECT_EQ(Encode({1, -4, 2, 3}, 2),
            (std::vector<uint8_t>{1, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0x80, 0xC0, 0, 0, 0x40, 0x40}));
}

TEST(TopKTest, KeepsExactlyTheLargest) {
  for (const int64_t n : {1, 2, 7, 64, 1000, 4099}) {
    for (const double scale : {1.0, 1e-30, 1e-44, 1e30}) {
      std::vector<float> x = Normal(n, static_cast<uint64_t>(n));
      for (float& value : x) value = static_cast<float>(value * scale);
      for (const int64_t k : {int64_t{1}, (n + 9) / 10, (n + 1) / 2, n}) {
        ASSERT_EQ(RoundTrip(x, k), Expected(x, k)) << n << " " << k << " " << scale;
      }
    }
  }
}

// Few distinct magnitudes of both signs: nearly all is ties. Any other order of equals differs between ranks or runs.
TEST(TopKTest, TiesGoToTheLowestIndices) {
  for (const int values : {1, 2, 3, 5}) {
    std::vector<float> x(1000);
    for (size_t i = 0; i < x.size(); ++i) {
      const size_t mixed = i * 2654435761u >> 7;
      x[i] = static_cast<float>(mixed % static_cast<size_t>(values)) * (mixed % 2 == 0 ? 1.0f : -1.0f);
    }
    for (int64_t k = 1; k <= 1000; k += 37) ASSERT_EQ(RoundTrip(x, k), Expected(x, k)) << values << " " << k;
  }
}

// Neighbouring floats differ in the last digit of the selection only.
TEST(TopKTest, TellsNeighbouringFloatsApart) {
  std::vector<float> x;
  uint32_t bits = 0x3F7FFE00;  // across a binade
  for (int i = 0; i < 1024; ++i) {
    float value;
    const uint32_t shuffled = bits + static_cast<uint32_t>(i * 389 % 1024);
    std::memcpy(&value, &shuffled, sizeof(value));
    x.push_back(i % 3 == 0 ? -value : value);
  }
  for (int64_t k = 1; k < 1024; k += 51) ASSERT_EQ(RoundTrip(x, k), Expected(x, k)) << k;
}

// More runs than one block of threads looks at; wires of any alignment; ties across runs.
TEST(TopKTest, SameBitsAsOnTheCpu) {
  for (const int64_t n : {1, 300, 5000, 70'001}) {
    std::vector<float> finite = Normal(n, 5);
    for (size_t i = 0; i < finite.size(); i += 3) finite[i] = std::round(finite[i]);
    for (const int64_t k : {int64_t{1}, (n + 99) / 100, (n + 1) / 2, n}) {
      for (const bool is_bad : {false, true}) {
        std::vector<float> x = finite;
        if (is_bad) x[x.size() / 2] = -HUGE_VALF;
        const HostTensor values = Values(x);
        testing::ExpectSameBitsAsOnCpu([&](Stream& stream) {
          const HostTensor memory(DType::kU8, {TopKBytes(k) + 1});
          const HostTensor workspace(DType::kU8, {kTopKWorkspaceBytes});
          const TensorView wire = memory.view().Slice(k % 2, TopKBytes(k));
          const HostTensor y = HostTensor::Filled(DType::kF32, {n}, 7);
          TopKEncode({.x = values, .wire = wire, .k = k, .workspace = workspace}, stream);
          TopKDecode({.wire = wire, .y = y, .k = k}, stream);
          std::vector<uint8_t> all = memory.Bytes();
          const std::vector<uint8_t> decoded = y.Bytes();
          all.insert(all.end(), decoded.begin(), decoded.end());
          return all;
        });
      }
    }
  }
}

TEST(TopKTest, OneBadValueMakesAllNan) {
  for (const float bad : {std::nanf(""), -std::nanf(""), std::numeric_limits<float>::infinity(), -HUGE_VALF}) {
    for (const size_t at : {0, 50, 99}) {
      std::vector<float> x = Normal(100, 3);
      x[at] = bad;
      for (const int64_t k : {1, 10, 100}) {
        for (const float value : RoundTrip(x, k)) ASSERT_TRUE(std::isnan(value));
      }
    }
  }
}

}  // namespace
}  // namespace trainyard::kernels
