#include "worker/jobs/pretrain_setup.h"

#include <utility>

#include "base/file.h"
#include "base/status_macros.h"
#include "proto/spec/references.h"
#include "worker/data/sample_loader.h"
#include "worker/model/hugging_face.h"

namespace trainyard::jobs {

model::ModelConfig ConfigOf(const spec::LlamaShape& shape) {
  model::ModelConfig config;
  config.vocab_size = shape.vocab_size;
  config.hidden_size = shape.hidden_size;
  config.intermediate_size = shape.intermediate_size;
  config.layers = shape.num_hidden_layers;
  config.q_heads = shape.num_attention_heads;
  config.kv_heads = shape.num_key_value_heads;
  config.head_dim = shape.head_dim;
  config.max_positions = shape.max_position_embeddings;
  config.rope_theta = shape.rope_theta;
  config.norm_eps = shape.rms_norm_eps;
  config.qkv_bias = shape.attention_bias;
  config.tied_head = shape.tie_word_embeddings;
  return config;
}

absl::StatusOr<PretrainSetup> SetUpPretrain(const spec::JobOptions& options, const std::string& data_root, int rank,
                                            int world_size) {
  TY_RETURN_IF_ERROR(spec::CheckResolved(options));
  const uint64_t seed = options.seed.value_or(0);
  PretrainSetup setup;
  if (const spec::LlamaShape* shape = spec::ShapeOf(options.model)) {
    setup.trainer.config = ConfigOf(*shape);
  } else {
    const auto& source = std::get<spec::PathModel>(options.model.source);
    const std::string directory = JoinPath(data_root, source.path);
    TY_ASSIGN_OR_RETURN(setup.trainer.config, model::ReadConfig(directory));
    if (!source.from_scratch) setup.weights_directory = directory;
  }
  setup.trainer.dtype = options.model.dtype == spec::FloatType::kBf16 ? kernels::DType::kBF16 : kernels::DType::kF32;
  setup.trainer.training = options.training;
  setup.trainer.sequence_length = options.data.sequence_length;
  setup.trainer.threads = options.world.threads_per_rank;
  if (options.world.slot_type == spec::SlotType::kGpu) setup.trainer.device = kernels::Device::kCuda;
  setup.trainer.seed = seed;
  setup.trainer.rank = rank;
  setup.trainer.ranks = world_size;

  // A selection is a sample set by now (spec::ResolveReference).
  setup.reads_samples = !options.data.samples.empty();
  setup.trainer.weighted_targets = setup.reads_samples;
  setup.loader.directory = JoinPath(data_root, setup.reads_samples ? options.data.samples : options.data.path);
  setup.loader.sequence_length = options.data.sequence_length;
  setup.loader.rank = rank;
  setup.loader.world_size = world_size;
  setup.loader.seed = options.data.shuffle_seed.value_or(seed);
  setup.loader.vocab_size = static_cast<int32_t>(setup.trainer.config.vocab_size);
  return setup;
}

absl::StatusOr<std::unique_ptr<data::BatchSource>> OpenRows(const PretrainSetup& setup) {
  std::unique_ptr<data::BatchSource> rows;
  if (setup.reads_samples) {
    TY_ASSIGN_OR_RETURN(rows, data::SampleLoader::Open(setup.loader));
  } else {
    TY_ASSIGN_OR_RETURN(data::Loader loader, data::Loader::Open(setup.loader));
    rows = std::make_unique<data::Loader>(std::move(loader));
  }
  return rows;
}

}  // namespace trainyard::jobs
