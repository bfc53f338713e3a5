#include "kernels/testing/host_tensor.h"

#include <cstring>

#include "gtest/gtest.h"
#include "kernels/core/philox.h"
#include "kernels/testing/test_stream.h"

namespace trainyard::kernels::testing {
namespace {

constexpr size_t kGuardBytes = 64;
constexpr char kGuard = static_cast<char>(0xA5);

TensorView MakeView(void* data, DType dtype, const std::vector<int64_t>& shape) {
  switch (shape.size()) {
    case 0:
      return TensorView(data, dtype, {});
    case 1:
      return TensorView(data, dtype, {shape[0]});
    case 2:
      return TensorView(data, dtype, {shape[0], shape[1]});
    case 3:
      return TensorView(data, dtype, {shape[0], shape[1], shape[2]});
    default:
      TY_CHECK_EQ(shape.size(), 4u);
      return TensorView(data, dtype, {shape[0], shape[1], shape[2], shape[3]});
  }
}

std::vector<int64_t> ShapeOf(const TensorView& view) {
  std::vector<int64_t> shape;
  for (int axis = 0; axis < view.rank(); ++axis) shape.push_back(view.dim(axis));
  return shape;
}

void Set(const TensorView& view, int64_t i, double value) {
  switch (view.dtype()) {
    case DType::kF32:
      view.as<float>()[i] = static_cast<float>(value);
      return;
    case DType::kBF16:
      view.as<BFloat16>()[i] = FromFloat<BFloat16>(static_cast<float>(value));
      return;
    case DType::kI32:
      view.as<int32_t>()[i] = static_cast<int32_t>(value);
      return;
    default:
      TY_CHECK(false && "HostTensor holds values of f32, bf16 and i32 only");
  }
}

}  // namespace

void HostTensor::Free::operator()(char* memory) const {
  if (device_bytes == 0) {
    delete[] memory;
  } else {
    FreeMemory(MemoryKind::kDevice, memory, device_bytes);
  }
}

HostTensor::Memory HostTensor::Reserve(int64_t bytes) {
  // Not AllocateMemory on the CPU: whole pages are nothing that a sanitizer watches.
  if (DeviceUnderTest() == Device::kCpu) return Memory(new char[static_cast<size_t>(bytes)], Free{0});
  const absl::StatusOr<void*> memory = AllocateMemory(MemoryKind::kDevice, bytes);
  TY_CHECK_OK(memory);
  return Memory(static_cast<char*>(*memory), Free{bytes});
}

HostTensor::HostTensor(DType dtype, const std::vector<int64_t>& shape) {
  const size_t bytes = static_cast<size_t>(MakeView(nullptr, dtype, shape).bytes());
  constexpr size_t kAlignment = 64;
  memory_ = Reserve(static_cast<int64_t>(bytes + 2 * kGuardBytes + kAlignment));
  const uintptr_t start = (reinterpret_cast<uintptr_t>(memory_.get()) + kAlignment - 1) / kAlignment * kAlignment;
  char* base = reinterpret_cast<char*>(start);
  std::memset(base, kGuard, bytes + 2 * kGuardBytes);
  std::memset(base + kGuardBytes, 0, bytes);
  view_ = MakeView(base + kGuardBytes, dtype, shape);
}

HostTensor::~HostTensor() {
  if (memory_ == nullptr) return;
  TY_CHECK_OK(SynchronizeDevice());
  const char* data = static_cast<const char*>(view_.data());
  bool intact = true;
  for (size_t i = 1; i <= kGuardBytes; ++i) intact = intact && *(data - i) == kGuard;
  for (size_t i = 0; i < kGuardBytes; ++i) intact = intact && data[view_.bytes() + static_cast<int64_t>(i)] == kGuard;
  EXPECT_TRUE(intact) << "an op wrote outside a tensor of " << view_.size() << " elements";
}

HostTensor HostTensor::Normal(DType dtype, const std::vector<int64_t>& shape, uint64_t seed, double scale) {
  HostTensor tensor(dtype, shape);
  const PhiloxKey key{.seed = seed, .purpose = kRandomTest};
  for (int64_t i = 0; i < tensor.view_.size(); ++i) {
    Set(tensor.view_, i, scale * RandomNormal(key, static_cast<uint64_t>(i)));
  }
  return tensor;
}

HostTensor HostTensor::Of(DType dtype, const std::vector<int64_t>& shape, const std::vector<double>& values) {
  HostTensor tensor(dtype, shape);
  TY_CHECK_EQ(static_cast<size_t>(tensor.view_.size()), values.size());
  for (size_t i = 0; i < values.size(); ++i) Set(tensor.view_, static_cast<int64_t>(i), values[i]);
  return tensor;
}

HostTensor HostTensor::Filled(DType dtype, const std::vector<int64_t>& shape, double value) {
  HostTensor tensor(dtype, shape);
  for (int64_t i = 0; i < tensor.view_.size(); ++i) Set(tensor.view_, i, value);
  return tensor;
}

HostTensor HostTensor::Copy() const {
  TY_CHECK_OK(SynchronizeDevice());
  HostTensor tensor(view_.dtype(), ShapeOf(view_));
  std::memcpy(tensor.view_.data(), view_.data(), static_cast<size_t>(view_.bytes()));
  return tensor;
}

std::vector<double> HostTensor::ToDoubles() const {
  TY_CHECK_OK(SynchronizeDevice());
  std::vector<double> values(static_cast<size_t>(view_.size()));
  for (size_t i = 0; i < values.size(); ++i) {
    switch (view_.dtype()) {
      case DType::kF32:
        values[i] = view_.as<float>()[i];
        break;
      case DType::kBF16:
        values[i] = ToFloat(view_.as<BFloat16>()[i]);
        break;
      case DType::kI32:
        values[i] = view_.as<int32_t>()[i];
        break;
      default:
        TY_CHECK(false && "HostTensor holds values of f32, bf16 and i32 only");
    }
  }
  return values;
}

std::vector<uint8_t> HostTensor::Bytes() const {
  TY_CHECK_OK(SynchronizeDevice());
  const uint8_t* data = static_cast<const uint8_t*>(view_.data());
  return std::vector<uint8_t>(data, data + view_.bytes());
}

HostTensor RandomTokens(int64_t count, int64_t limit, uint64_t seed) {
  HostTensor tensor(DType::kI32, {count});
  const PhiloxKey key{.seed = seed, .purpose = kRandomTest};
  for (int64_t i = 0; i < count; ++i) {
    const uint64_t word = RandomWord(key, static_cast<uint64_t>(i));
    tensor.as<int32_t>()[i] = static_cast<int32_t>((word * static_cast<uint64_t>(limit)) >> 32);
  }
  return tensor;
}

}  // namespace trainyard::kernels::testing
