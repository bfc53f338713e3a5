#include "kernels/testing/test_stream.h"

#include <cstdio>
#include <cstdlib>
#include <string>

#include "gtest/gtest.h"

namespace trainyard::kernels::testing {
namespace {

Device Choose() {
  const char* wanted = std::getenv("TY_TEST_DEVICE");
  if (wanted == nullptr || std::string(wanted) != "cuda") return Device::kCpu;
  if (const absl::Status status = CheckCudaDevice(); !status.ok()) {
    std::printf("SKIPPED: %s\n", std::string(status.message()).c_str());
    std::fflush(stdout);
    std::_Exit(0);
  }
  return Device::kCuda;
}

}  // namespace

Device DeviceUnderTest() {
  static const Device device = Choose();
  return device;
}

void ExpectSameBitsAsOnCpu(const std::function<std::vector<uint8_t>(Stream& stream)>& body) {
  Stream cpu(1);
  const std::vector<uint8_t> expected = body(cpu);
  EXPECT_FALSE(expected.empty()) << "nothing compared";
  TestStream stream(1);
  EXPECT_TRUE(body(stream) == expected) << "the device under test gives other bits than the CPU";
}

}  // namespace trainyard::kernels::testing
