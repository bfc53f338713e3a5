// hf_shrink MODEL_DIR TOKENS.safetensors OUT_DIR HEADS CHANNELS: the half of tests/golden/hf_parity.py --shrink that is
// ours. Removes the first HEADS query heads of every group and the first CHANNELS channels of every MLP of a Hugging
// Face folder, writes the small model to OUT_DIR and its logits of "tokens" (I32, (rows, length)) to
// OUT_DIR/logits.safetensors.
#include <cstring>
#include <iostream>
#include <vector>

#include "absl/strings/numbers.h"
#include "base/status_macros.h"
#include "worker/linear/linear_scheme.h"
#include "worker/model/hugging_face.h"
#include "worker/model/network.h"
#include "worker/model/safetensors.h"
#include "worker/prune/shrink.h"

namespace trainyard::prune {
namespace {

absl::Status Run(const std::string& directory, const std::string& tokens_path, const std::string& out, int32_t heads,
                 int32_t channels) {
  TY_ASSIGN_OR_RETURN(const model::ModelConfig dense, model::ReadConfig(directory));
  TY_ASSIGN_OR_RETURN(const model::SafetensorsReader input, model::SafetensorsReader::Open(tokens_path));
  TY_ASSIGN_OR_RETURN(const kernels::TensorView tokens, input.Tensor("tokens"));
  std::vector<BlockRemoval> removals(static_cast<size_t>(dense.layers));
  const auto group = static_cast<int32_t>(dense.q_heads / dense.kv_heads);
  for (BlockRemoval& removal : removals) {
    for (int32_t head = 0; head < dense.q_heads; ++head) {
      if (head % group < heads) removal.heads.push_back(head);
    }
    for (int32_t channel = 0; channel < channels; ++channel) removal.channels.push_back(channel);
  }
  TY_RETURN_IF_ERROR(CheckRemovals(dense, removals));
  const model::ModelConfig config = ShrunkConfig(dense, removals, /*prune_kv_heads=*/true);

  const model::NetworkOptions options{.batch = tokens.dim(0), .seq = tokens.dim(1)};
  const std::unique_ptr<linear::LinearScheme> scheme = linear::MakeFp32Scheme();
  model::NetworkTensors whole, weights;
  const auto build = [&](kernels::Arena& arena) {
    whole = AllocateWeights(dense, options.dtype, "weights", arena);
    weights = AllocateWeights(config, options.dtype, "weights", arena);
    return model::Network(config, options, scheme.get(), &weights, nullptr, arena);
  };
  kernels::Arena counting = kernels::Arena::CountOnly();
  build(counting);
  TY_ASSIGN_OR_RETURN(kernels::Arena arena, kernels::Arena::Reserve(counting.used_bytes()));
  model::Network network = build(arena);
  kernels::Stream stream(1);
  network.Prepare(stream);
  TY_RETURN_IF_ERROR(ImportWeights(directory, dense, whole.all, stream));
  Shrink(dense, whole, removals, /*prune_kv_heads=*/true, weights, stream);
  std::memcpy(network.tokens().data(), tokens.data(), static_cast<size_t>(tokens.bytes()));
  std::vector<float> values(static_cast<size_t>(tokens.size() * config.vocab_size));
  network.ForwardLogits({values.data(), kernels::DType::kF32, {tokens.size(), config.vocab_size}}, stream);
  TY_RETURN_IF_ERROR(ExportModel(config, weights.all, {.directory = out, .tokenizer_source = ""}).status());
  return model::WriteSafetensors(out + "/logits.safetensors",
                                 {{"logits", kernels::DType::kF32, {tokens.dim(0), tokens.dim(1), config.vocab_size}}},
                                 {values.data()})
      .status();
}

}  // namespace
}  // namespace trainyard::prune

int main(int argc, char** argv) {
  int32_t heads = 0, channels = 0;
  if (argc != 6 || !absl::SimpleAtoi(argv[4], &heads) || !absl::SimpleAtoi(argv[5], &channels)) {
    std::cerr << "usage: hf_shrink MODEL_DIR TOKENS.safetensors OUT_DIR HEADS CHANNELS\n";
    return 2;
  }
  const absl::Status status = trainyard::prune::Run(argv[1], argv[2], argv[3], heads, channels);
  if (!status.ok()) std::cerr << "error: " << status.message() << "\n";
  return status.ok() ? 0 : 1;
}
