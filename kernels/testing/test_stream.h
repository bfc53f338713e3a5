// The device that an op's test runs on: the CPU, or, with TY_TEST_DEVICE=cuda in the environment, a CUDA device,
// emulated
// (--config=simt) or real (--config=cuda). So one test judges an op's CPU code and its CUDA twin.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "kernels/core/stream.h"

namespace trainyard::kernels::testing {

// Exits the program as skipped, with the reason, if the device asked for cannot be used.
Device DeviceUnderTest();

class TestStream : public Stream {
 public:
  explicit TestStream(int threads) : Stream(DeviceUnderTest(), threads) {}
};

// Runs `body` on the CPU and on the device under test and expects the same bytes from both: for number formats, codecs
// and selections, whose GPU results are those of the CPU to the last bit.
void ExpectSameBitsAsOnCpu(const std::function<std::vector<uint8_t>(Stream& stream)>& body);

}  // namespace trainyard::kernels::testing
