#include "worker/prune/task/candidate.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "kernels/core/dispatch.h"
#include "kernels/loss/cross_entropy.h"
#include "kernels/loss/kl_divergence.h"
#include "kernels/optim/adamw.h"
#include "kernels/pointwise/elementwise.h"
#include "worker/model/hugging_face.h"

namespace trainyard::prune {
namespace {

using kernels::Arena;
using kernels::DType;
using kernels::TensorView;

// PyTorch's.
constexpr float kBeta1 = 0.9f;
constexpr float kBeta2 = 0.999f;
constexpr float kEpsilon = 1e-8f;

struct Moments {
  TensorView m, v;
};

// The state of a fine-tuning, taken from `arena`.
struct TuningState {
  TuningState(const LoadedModel& model, bool is_pure_bf16, Arena& arena)
      : gradients(AllocateGradients(model.config, arena)) {
    const bool has_masters = !is_pure_bf16 && model.weights.embedding.dtype() == DType::kBF16;
    if (has_masters) masters = AllocateWeights(model.config, DType::kF32, "master", arena);
    for (const TensorView& weight : model.weights.all) {
      const DType dtype = is_pure_bf16 ? DType::kBF16 : DType::kF32;
      moments.push_back(
          {arena.Allocate("moments", dtype, {weight.size()}), arena.Allocate("moments", dtype, {weight.size()})});
    }
  }
  model::Gradients gradients;
  model::NetworkTensors masters;  // none if the weights are their own
  std::vector<Moments> moments;
};

// What the host does in memory that it shares with the device: on `stream` if that is a CPU's, else on one in `own`.
kernels::Stream& OnHost(kernels::Stream& stream, std::optional<kernels::Stream>& own) {
  if (stream.device() == kernels::Device::kCpu) return stream;
  kernels::WaitForDevice(stream);
  return own.emplace(stream.threads());
}

double SumOf(const TensorView& losses) {
  double sum = 0;
  for (int64_t i = 0; i < losses.size(); ++i) sum += losses.as<float>()[i];
  return sum;
}

}  // namespace

absl::StatusOr<LoadedModel> AllocateModel(const model::ModelConfig& config, DType dtype, kernels::Device device) {
  Arena counting = Arena::CountOnly(device);
  AllocateWeights(config, dtype, "weights", counting);
  TY_ASSIGN_OR_RETURN(Arena arena, Arena::Reserve(counting));
  LoadedModel loaded;
  loaded.config = config;
  loaded.arena = std::make_unique<Arena>(std::move(arena));
  loaded.weights = AllocateWeights(config, dtype, "weights", *loaded.arena);
  return loaded;
}

absl::StatusOr<LoadedModel> LoadDenseModel(const std::string& directory, DType dtype, kernels::Stream& stream) {
  TY_ASSIGN_OR_RETURN(const model::ModelConfig config, model::ReadConfig(directory));
  TY_RETURN_IF_ERROR(Validate(config));
  if (!config.blocks.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("model: ", directory, " has blocks of different sizes: it has been pruned already"));
  }
  TY_ASSIGN_OR_RETURN(LoadedModel loaded, AllocateModel(config, dtype, stream.device()));
  std::optional<kernels::Stream> own;
  TY_RETURN_IF_ERROR(ImportWeights(directory, config, loaded.weights.all, OnHost(stream, own)));
  return loaded;
}

absl::StatusOr<LoadedModel> StitchShrunk(const LoadedModel& dense, const Database& database, const Genome& genome,
                                         bool prune_kv_heads, kernels::Stream& stream) {
  TY_ASSIGN_OR_RETURN(const std::vector<BlockRemoval> removals, database.Removals(genome));
  TY_RETURN_IF_ERROR(CheckRemovals(dense.config, removals));
  TY_ASSIGN_OR_RETURN(LoadedModel small, AllocateModel(ShrunkConfig(dense.config, removals, prune_kv_heads),
                                                       dense.weights.embedding.dtype(), stream.device()));
  std::optional<kernels::Stream> own;
  kernels::Stream& host = OnHost(stream, own);
  Shrink(dense.config, dense.weights, removals, prune_kv_heads, small.weights, host);
  for (size_t block = 0; block < genome.attention.size(); ++block) {
    const auto replace = [&](spec::PruneModule which, int32_t level, const TensorView& weights) -> absl::Status {
      const StoredModule& module = database.module(static_cast<int64_t>(block), which);
      if (module.levels[static_cast<size_t>(level)].file.empty()) return absl::OkStatus();
      return database.ReadWeights(module, level, weights, host);
    };
    const model::BlockTensors& tensors = small.weights.blocks[block];
    TY_RETURN_IF_ERROR(replace(spec::PruneModule::kAttention, genome.attention[block], tensors.output));
    TY_RETURN_IF_ERROR(replace(spec::PruneModule::kMlp, genome.mlp[block], tensors.down));
  }
  return small;
}

absl::StatusOr<LoadedModel> StitchDense(const LoadedModel& dense, const Database& database, const Genome& genome,
                                        kernels::Stream& stream) {
  TY_ASSIGN_OR_RETURN(const std::vector<BlockRemoval> removals, database.Removals(genome));
  const DType dtype = dense.weights.embedding.dtype();
  TY_ASSIGN_OR_RETURN(LoadedModel copy, AllocateModel(dense.config, dtype, stream.device()));
  std::optional<kernels::Stream> own;
  kernels::Stream& host = OnHost(stream, own);
  for (size_t i = 0; i < dense.weights.all.size(); ++i) {
    const TensorView& from = dense.weights.all[i];
    std::memcpy(copy.weights.all[i].data(), from.data(), static_cast<size_t>(from.bytes()));
  }
  const auto scatter = [&](int64_t block, spec::PruneModule which, int32_t level,
                           const TensorView& weights) -> absl::Status {
    const StoredModule& module = database.module(block, which);
    if (module.levels[static_cast<size_t>(level)].file.empty()) return absl::OkStatus();
    TY_ASSIGN_OR_RETURN(const std::vector<int32_t> kept, database.Kept(module, level));
    const auto count = static_cast<int64_t>(kept.size());
    const auto element = static_cast<int64_t>(kernels::SizeOf(dtype));
    std::vector<char> compact(static_cast<size_t>(module.rows * count * element));
    TY_RETURN_IF_ERROR(database.ReadWeights(module, level, {compact.data(), dtype, {module.rows, count}}, host));
    char* const out = static_cast<char*>(weights.data());
    for (int64_t row = 0; row < module.rows; ++row) {
      for (int64_t i = 0; i < count; ++i) {
        std::memcpy(out + (row * module.columns + kept[static_cast<size_t>(i)]) * element,
                    compact.data() + (row * count + i) * element, static_cast<size_t>(element));
      }
    }
    return absl::OkStatus();
  };
  for (size_t block = 0; block < genome.attention.size(); ++block) {
    const model::BlockTensors& tensors = copy.weights.blocks[block];
    const auto index = static_cast<int64_t>(block);
    TY_RETURN_IF_ERROR(scatter(index, spec::PruneModule::kAttention, genome.attention[block], tensors.output));
    TY_RETURN_IF_ERROR(scatter(index, spec::PruneModule::kMlp, genome.mlp[block], tensors.down));
  }
  ZeroColumns(dense.config, removals, copy.weights, host);
  return copy;
}

absl::StatusOr<std::optional<double>> FineTune(const FineTuneArgs& args, const std::vector<Document>& documents,
                                               LoadedModel& model, kernels::Stream& stream) {
  std::optional<double> loss;
  if (documents.empty()) return loss;
  const DType dtype = model.weights.embedding.dtype();
  const bool is_pure_bf16 = args.options.master_dtype == spec::PruneFloat::kBf16;
  TY_CHECK(!is_pure_bf16 || dtype == DType::kBF16);
  Arena counting = Arena::CountOnly(stream.device());
  TuningState(model, is_pure_bf16, counting);
  TY_ASSIGN_OR_RETURN(Arena arena, Arena::Reserve(counting));
  TuningState state(model, is_pure_bf16, arena);
  for (size_t i = 0; i < state.masters.all.size(); ++i) {
    Convert({.x = model.weights.all[i], .y = state.masters.all[i]}, stream);
  }

  const std::unique_ptr<linear::LinearScheme> scheme = linear::MakeFp32Scheme();
  const size_t batch = std::min(static_cast<size_t>(args.options.batch_documents), documents.size());
  BucketNetworks networks(
      model.config,
      {.most_documents = static_cast<int64_t>(batch), .sequence_length = args.sequence_length, .dtype = dtype},
      scheme.get(), &model.weights, &state.gradients.tensors, &stream);
  int64_t step = 0;
  for (size_t first = 0; first < documents.size(); first += batch) {
    if (args.should_stop()) return absl::CancelledError("asked to stop while fine-tuning");
    const size_t count = std::min(batch, documents.size() - first);
    TY_ASSIGN_OR_RETURN(const BucketNetworks::Loaded loaded, networks.Load({&documents[first], count}));
    if (loaded.positions == 0) continue;  // of cut documents one token may be left
    loaded.network->ForwardBackward({.loss_scale = static_cast<float>(1.0 / static_cast<double>(loaded.positions))},
                                    stream);
    kernels::WaitForDevice(stream);
    loss = SumOf(loaded.network->losses()) / static_cast<double>(loaded.positions);
    if (!std::isfinite(*loss)) {
      return absl::FailedPreconditionError(absl::StrCat("fine-tuning step ", step + 1, ": the loss is not finite"));
    }
    ++step;
    for (size_t i = 0; i < state.moments.size(); ++i) {
      AdamW({.param = model.weights.all[i],
             .master = state.masters.all.empty() ? TensorView() : state.masters.all[i],
             .grad = state.gradients.tensors.all[i],
             .m = state.moments[i].m,
             .v = state.moments[i].v,
             .lr = static_cast<float>(args.options.learning_rate),
             .beta1 = kBeta1,
             .beta2 = kBeta2,
             .eps = kEpsilon,
             .weight_decay = static_cast<float>(args.options.weight_decay),
             .step = step},
            stream);
    }
    if (args.options.enforcement == spec::PruneEnforcement::kMask && args.removals != nullptr) {
      ZeroColumns(model.config, *args.removals, model.weights, stream);
      if (!state.masters.all.empty()) ZeroColumns(model.config, *args.removals, state.masters, stream);
    }
  }
  kernels::WaitForDevice(stream);
  return loss;
}

DistanceMeter::DistanceMeter(const LoadedModel* dense, int64_t sequence_length, int64_t top_k, kernels::Stream* stream)
    : dense_(dense),
      sequence_length_(sequence_length),
      top_k_(std::min(top_k, dense->config.vocab_size)),
      stream_(stream),
      scheme_(linear::MakeFp32Scheme()),
      dense_networks_(dense->config, {.sequence_length = sequence_length, .dtype = dense->weights.embedding.dtype()},
                      scheme_.get(), &dense->weights, nullptr, stream),
      arena_(Arena::CountOnly(stream->device())) {}

absl::Status DistanceMeter::Allocate() {
  if (!arena_.counts_only()) return absl::OkStatus();
  const auto allocate = [&](Arena& arena) {
    const DType dtype = dense_->weights.embedding.dtype();
    for (TensorView* logits : {&dense_logits_, &logits_}) {
      *logits = arena.Allocate("logits", dtype, {sequence_length_, dense_->config.vocab_size});
    }
    numbers_ = arena.AllocateShared("logits", DType::kF32, {3, sequence_length_});
  };
  Arena counting = Arena::CountOnly(stream_->device());
  allocate(counting);
  TY_ASSIGN_OR_RETURN(arena_, Arena::Reserve(counting));
  allocate(arena_);
  return absl::OkStatus();
}

absl::StatusOr<Distance> DistanceMeter::Measure(const LoadedModel& model, const std::vector<Document>& documents,
                                                const std::function<bool()>& should_stop) {
  TY_RETURN_IF_ERROR(Allocate());
  BucketNetworks networks(model.config, {.sequence_length = sequence_length_, .dtype = model.weights.embedding.dtype()},
                          scheme_.get(), &model.weights, nullptr, stream_);
  Distance distance;
  double kl = 0, loss = 0, dense_loss = 0;
  for (const Document& document : documents) {
    if (should_stop()) return absl::CancelledError("asked to stop while measuring");
    if (document.size() < 2) continue;
    TY_ASSIGN_OR_RETURN(const BucketNetworks::Loaded dense, dense_networks_.Load({&document, 1}));
    TY_ASSIGN_OR_RETURN(const BucketNetworks::Loaded other, networks.Load({&document, 1}));
    dense.network->ForwardLogits(dense_logits_.Slice(0, dense.rows), *stream_);
    other.network->ForwardLogits(logits_.Slice(0, other.rows), *stream_);
    const auto of_document = [&](int64_t row) { return numbers_.Slice(row, 1).Reshape({sequence_length_}); };
    const TensorView divergences = of_document(0).Slice(0, dense.positions);
    KlDivergence({.p_logits = dense_logits_.Slice(0, dense.positions),
                  .q_logits = logits_.Slice(0, dense.positions),
                  .divergences = divergences,
                  .top_k = top_k_},
                 *stream_);
    const auto losses_of = [&](const TensorView& logits, const BucketNetworks::Loaded& loaded, int64_t row) {
      const TensorView losses = of_document(row).Slice(0, loaded.positions);
      CrossEntropyForward({.logits = logits.Slice(0, loaded.positions),
                           .targets = loaded.network->targets().Reshape({loaded.rows}).Slice(0, loaded.positions),
                           .losses = losses},
                          *stream_);
      return losses;
    };
    const TensorView dense_losses = losses_of(dense_logits_, dense, 1), losses = losses_of(logits_, other, 2);
    kernels::WaitForDevice(*stream_);
    kl += SumOf(divergences);
    dense_loss += SumOf(dense_losses);
    loss += SumOf(losses);
    distance.positions += dense.positions;
  }
  if (distance.positions == 0) {
    return absl::InvalidArgumentError("evaluation_tokens: the documents that were drawn have no token with a next one");
  }
  const auto positions = static_cast<double>(distance.positions);
  distance.kl = kl / positions;
  distance.loss = loss / positions;
  distance.dense_loss = dense_loss / positions;
  if (!std::isfinite(distance.kl) || !std::isfinite(distance.loss)) {
    return absl::FailedPreconditionError(absl::StrCat("the candidate's distance is not finite: KL ", distance.kl,
                                                      ", loss ", distance.loss, " over ", distance.positions,
                                                      " positions"));
  }
  return distance;
}

absl::StatusOr<std::vector<Document>> ValidationDocuments(const data::Loader& loader, int64_t batches, int64_t rows,
                                                          int64_t sequence_length) {
  std::vector<Document> documents;
  std::vector<int32_t> tokens(static_cast<size_t>(rows * sequence_length)), targets(tokens.size());
  for (int64_t batch = 0; batch < batches; ++batch) {
    TY_ASSIGN_OR_RETURN(const int64_t real,
                        loader.Validation(batch * rows, {tokens.data(), DType::kI32, {rows, sequence_length}},
                                          {targets.data(), DType::kI32, {rows, sequence_length}}));
    for (int64_t row = 0; row < real; ++row) {
      const auto first = tokens.begin() + row * sequence_length;
      documents.emplace_back(first, first + sequence_length);
    }
  }
  return documents;
}

}  // namespace trainyard::prune
