#include "kernels/codec/level_code.h"

#include "kernels/codec/bucket_summary.h"
#include "kernels/codec/level_code_internal.h"
#include "kernels/core/dispatch.h"

namespace trainyard::kernels {
namespace {

void CheckFormat(const LevelFormat& format) {
  const absl::Span<const float> levels = format.levels;
  TY_CHECK(IsBucketSize(format.bucket_size));
  TY_CHECK(levels.size() >= 2 && levels.size() <= static_cast<size_t>(kMostLevels));
  TY_CHECK(levels.front() == 0.0f && levels.back() == 1.0f);
  for (size_t i = 1; i < levels.size(); ++i) TY_CHECK_LT(levels[i - 1], levels[i]);
}

}  // namespace

void LevelEncode(const LevelEncodeArgs& args, Stream& stream) {
  CheckFormat(args.format);
  TY_CHECK_GE(args.wire.size(), args.format.WireOf(args.x.size()).bytes());
  TY_SELECT(stream, LevelEncode)(args, stream);
}

void LevelDecode(const LevelDecodeArgs& args, Stream& stream) {
  CheckFormat(args.format);
  TY_CHECK_GE(args.wire.size(), args.format.WireOf(args.y.size()).bytes());
  TY_SELECT(stream, LevelDecode)(args, stream);
}

float BucketNorm(const float* x, int64_t count, LevelNorm norm) {
  return norm == LevelNorm::kL2 ? internal::EuclideanNorm(x, count) : internal::LargestMagnitude(x, count);
}

}  // namespace trainyard::kernels
