#include "worker/comm/make_codec.h"

#include <utility>

#include "base/check.h"
#include "base/overloaded.h"
#include "worker/comm/codecs/huffman_codec.h"
#include "worker/comm/codecs/level_codec.h"
#include "worker/comm/codecs/maxmin_codec.h"
#include "worker/comm/codecs/sign_mean_codec.h"
#include "worker/comm/codecs/top_k_codec.h"

namespace trainyard::comm {

std::unique_ptr<PackedCodec> MakePackedCodec(const CodecSetting& setting) {
  using Made = std::unique_ptr<PackedCodec>;
  return std::visit(Overloaded{
                        [](const spec::MaxminCodec& o) -> Made {
                          const bool nearest = o.rounding == spec::Rounding::kNearest;
                          return MakeMaxminCodec({.bits = o.bits,
                                                  .bucket_size = o.bucket_size,
                                                  .rounding = nearest ? kernels::CodeRounding::kNearest
                                                                      : kernels::CodeRounding::kStochastic});
                        },
                        [&](const spec::LevelsCodec& o) -> Made {
                          const bool l2 = o.norm == spec::LevelNorm::kL2;
                          return MakeLevelCodec({.levels = setting.levels,
                                                 .norm = l2 ? kernels::LevelNorm::kL2 : kernels::LevelNorm::kLInf,
                                                 .bucket_size = o.bucket_size});
                        },
                        [](const auto&) -> Made { return nullptr; },
                    },
                    setting.codec);
}

std::unique_ptr<Codec> MakeCodec(const CodecSetting& setting) {
  if (std::unique_ptr<PackedCodec> packed = MakePackedCodec(setting)) {
    if (setting.code_table.empty()) return packed;
    absl::StatusOr<kernels::HuffmanTable> table = kernels::HuffmanTable::FromText(setting.code_table);
    TY_CHECK_OK(table);
    return MakeHuffmanCodec(std::move(packed), *std::move(table));
  }
  if (const auto* sign_mean = std::get_if<spec::SignMeanCodec>(&setting.codec)) {
    return MakeSignMeanCodec({.bucket_size = sign_mean->bucket_size});
  }
  if (const auto* top_k = std::get_if<spec::TopKCodec>(&setting.codec)) {
    return MakeTopKCodec({.density = top_k->density});
  }
  return MakeIdentityCodec();
}

}  // namespace trainyard::comm
