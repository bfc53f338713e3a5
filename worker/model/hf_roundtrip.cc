// hf_roundtrip MODEL_DIR TOKENS.safetensors OUT_DIR: the half of tests/golden/hf_parity.py that is ours. Imports a
// Hugging Face folder, writes the logits of "tokens" (I32, (rows, length)) to OUT_DIR/logits.safetensors, and exports
// the model again to OUT_DIR.
#include <cstring>
#include <iostream>
#include <vector>

#include "base/status_macros.h"
#include "worker/linear/linear_scheme.h"
#include "worker/model/hugging_face.h"
#include "worker/model/network.h"
#include "worker/model/safetensors.h"

namespace trainyard::model {
namespace {

absl::Status Run(const std::string& directory, const std::string& tokens_path, const std::string& out) {
  TY_ASSIGN_OR_RETURN(const ModelConfig config, ReadConfig(directory));
  TY_ASSIGN_OR_RETURN(const SafetensorsReader input, SafetensorsReader::Open(tokens_path));
  TY_ASSIGN_OR_RETURN(const kernels::TensorView tokens, input.Tensor("tokens"));
  const NetworkOptions options{.batch = tokens.dim(0), .seq = tokens.dim(1)};
  const std::unique_ptr<linear::LinearScheme> scheme = linear::MakeFp32Scheme();
  NetworkTensors weights;
  const auto build = [&](kernels::Arena& arena) {
    weights = AllocateWeights(config, options.dtype, "weights", arena);
    return Network(config, options, scheme.get(), &weights, nullptr, arena);
  };
  kernels::Arena counting = kernels::Arena::CountOnly();
  build(counting);
  TY_ASSIGN_OR_RETURN(kernels::Arena arena, kernels::Arena::Reserve(counting.used_bytes()));
  Network network = build(arena);
  kernels::Stream stream(1);
  network.Prepare(stream);
  TY_RETURN_IF_ERROR(ImportWeights(directory, config, weights.all, stream));
  std::memcpy(network.tokens().data(), tokens.data(), static_cast<size_t>(tokens.bytes()));

  std::vector<float> values(static_cast<size_t>(tokens.size() * config.vocab_size));
  const kernels::TensorView logits(values.data(), kernels::DType::kF32, {tokens.size(), config.vocab_size});
  network.ForwardLogits(logits, stream);
  TY_RETURN_IF_ERROR(ExportModel(config, weights.all, {.directory = out, .tokenizer_source = ""}).status());
  return WriteSafetensors(out + "/logits.safetensors",
                          {{"logits", kernels::DType::kF32, {tokens.dim(0), tokens.dim(1), config.vocab_size}}},
                          {values.data()})
      .status();
}

}  // namespace
}  // namespace trainyard::model

int main(int argc, char** argv) {
  if (argc != 4) {
    std::cerr << "usage: hf_roundtrip MODEL_DIR TOKENS.safetensors OUT_DIR\n";
    return 2;
  }
  const absl::Status status = trainyard::model::Run(argv[1], argv[2], argv[3]);
  if (!status.ok()) std::cerr << "error: " << status.message() << "\n";
  return status.ok() ? 0 : 1;
}
