#include "worker/prune/task/hessians.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "kernels/core/arena.h"
#include "kernels/pointwise/elementwise.h"
#include "kernels/prune/obs.h"
#include "worker/linear/linear_scheme.h"
#include "worker/model/safetensors.h"
#include "worker/prune/task/bucket_networks.h"

namespace trainyard::prune {
namespace {

using kernels::DType;
using kernels::TensorView;

constexpr spec::PruneModule kModules[] = {spec::PruneModule::kAttention, spec::PruneModule::kMlp};
constexpr int64_t kRoundsBetweenPolls = 8;

// The moments of some blocks, by the names of their sites.
struct Moments {
  struct Sum {
    int64_t block = 0;
    spec::PruneModule module = spec::PruneModule::kAttention;
    TensorView values = {};  // f32 (columns, columns), of the stream's device
    int64_t columns() const { return values.dim(0); }
  };
  kernels::Arena arena = kernels::Arena::CountOnly();  // of all values
  std::map<std::string, Sum> sums;
  int64_t rows = 0;  // of the current document: what is behind them is padding
};

// Adds up the inputs that pass by.
class RecordingScheme final : public linear::LinearScheme {
 public:
  explicit RecordingScheme(Moments* moments) : moments_(moments) {}
  absl::string_view name() const override { return "record"; }
  int64_t WorkspaceBytes(const linear::LinearSite& site) const override { return inner_->WorkspaceBytes(site); }
  void Forward(const linear::LinearCall& call, const kernels::LinearForwardArgs& args,
               kernels::Stream& stream) const override {
    if (const auto found = moments_->sums.find(call.site.name); found != moments_->sums.end()) {
      AccumulateHessian({.x = args.x.Slice(0, moments_->rows), .hessian = found->second.values, .scale = 2.0f}, stream);
    }
    inner_->Forward(call, args, stream);
  }
  void Backward(const linear::LinearCall&, const linear::LinearBackwardArgs&, kernels::Stream&) const override {
    TY_CHECK(false && "a forward only");
  }

 private:
  Moments* const moments_;
  const std::unique_ptr<linear::LinearScheme> inner_ = linear::MakeFp32Scheme();
};

int64_t Columns(const model::ModelConfig& config, spec::PruneModule module) {
  return module == spec::PruneModule::kAttention ? config.q_heads * config.head_dim : config.intermediate_size;
}

absl::Status Forwards(const CalibrationArgs& args, BucketNetworks& networks, Moments& moments,
                      kernels::Stream& stream) {
  const auto ranks = static_cast<size_t>(args.communicator == nullptr ? 1 : args.communicator->size());
  const auto rank = static_cast<size_t>(args.communicator == nullptr ? 0 : args.communicator->rank());
  const size_t count = args.documents->size();
  // All ranks make the same number of rounds, so that they ask together.
  for (size_t round = 0; round * ranks < count; ++round) {
    if (round % kRoundsBetweenPolls == 0) {
      TY_ASSIGN_OR_RETURN(const bool stops, args.agree_to_stop());
      if (stops) return absl::CancelledError("asked to stop while calibrating");
    }
    const size_t index = round * ranks + rank;
    if (index >= count) continue;
    TY_ASSIGN_OR_RETURN(const BucketNetworks::Loaded loaded, networks.Load({&(*args.documents)[index], 1}));
    moments.rows = static_cast<int64_t>((*args.documents)[index].size());
    loaded.network->Forward(stream);
  }
  return stream.Synchronize();
}

// Zeros for the modules of blocks `first` to `last`, in place of what was there.
absl::Status Allocate(const model::ModelConfig& config, int64_t first, int64_t last, kernels::Device device,
                      Moments& moments) {
  moments.sums.clear();
  moments.arena = kernels::Arena::CountOnly(device);
  const auto allocate = [&](kernels::Arena& arena) {
    for (int64_t block = first; block < last; ++block) {
      for (spec::PruneModule module : kModules) {
        const int64_t columns = Columns(config, module);
        const char* const site = module == spec::PruneModule::kAttention ? ".output" : ".down";
        moments.sums[absl::StrCat("layers.", block, site)] = {
            block, module, arena.Allocate("moments", DType::kF32, {columns, columns})};
      }
    }
  };
  kernels::Arena counting = kernels::Arena::CountOnly(device);
  allocate(counting);
  TY_ASSIGN_OR_RETURN(moments.arena, kernels::Arena::Reserve(counting));
  allocate(moments.arena);
  return absl::OkStatus();
}

absl::StatusOr<int64_t> Write(const CalibrationArgs& args, const Moments::Sum& sum) {
  for (int64_t i = 0; i < sum.values.size(); ++i) {
    if (!std::isfinite(sum.values.as<float>()[i])) {
      return absl::FailedPreconditionError(
          absl::StrCat("block ", sum.block, " ", Name(sum.module), ": the inputs are not finite"));
    }
  }
  int64_t tokens = 0;
  for (const Document& document : *args.documents) tokens += static_cast<int64_t>(document.size());
  TY_ASSIGN_OR_RETURN(
      const model::SafetensorsFileInfo info,
      model::WriteSafetensors(HessianPath(args.directory, sum.block, sum.module),
                              {{"hessian", DType::kF32, {sum.columns(), sum.columns()}}}, {sum.values.data()},
                              {{"sequences", absl::StrCat(args.documents->size())}, {"tokens", absl::StrCat(tokens)}}));
  return static_cast<int64_t>(info.bytes);
}

}  // namespace

const char* Name(spec::PruneModule module) {
  return module == spec::PruneModule::kAttention ? "attention" : "mlp";
}

std::string HessianPath(const std::string& directory, int64_t block, spec::PruneModule module) {
  return JoinPath(directory, absl::StrCat("layers.", block, ".", Name(module), ".safetensors"));
}

absl::StatusOr<int64_t> Calibrate(const CalibrationArgs& args, kernels::Stream& stream) {
  const model::ModelConfig& config = *args.config;
  const bool writes = args.communicator == nullptr || args.communicator->rank() == 0;
  if (writes) TY_RETURN_IF_ERROR(MakeDirs(args.directory));
  int64_t block_bytes = 0;
  for (spec::PruneModule module : kModules) block_bytes += 4 * Columns(config, module) * Columns(config, module);
  const int64_t blocks_at_once = std::max<int64_t>(1, args.most_bytes / block_bytes);

  Moments moments;
  const RecordingScheme scheme(&moments);
  BucketNetworks networks(config, {.sequence_length = args.sequence_length}, &scheme, args.weights, nullptr, &stream);
  int64_t bytes = 0;
  for (int64_t first = 0; first < config.layers; first += blocks_at_once) {
    TY_RETURN_IF_ERROR(
        Allocate(config, first, std::min(config.layers, first + blocks_at_once), stream.device(), moments));
    TY_RETURN_IF_ERROR(Forwards(args, networks, moments, stream));
    for (auto& [name, sum] : moments.sums) {
      const float scale = 1.0f / static_cast<float>(args.documents->size());
      if (args.communicator != nullptr && args.communicator->size() > 1) {
        TY_RETURN_IF_ERROR(args.communicator->AllReduceSum(sum.values, scale));
      } else {
        Scale({.x = sum.values, .y = sum.values, .scale = scale}, stream);
      }
      if (!writes) continue;
      MirrorHessian(sum.values, stream);
      TY_ASSIGN_OR_RETURN(const int64_t written, Write(args, sum));
      bytes += written;
    }
  }
  return bytes;
}

absl::StatusOr<std::vector<float>> ReadHessian(const std::string& path, int64_t columns) {
  TY_ASSIGN_OR_RETURN(const model::SafetensorsReader file, model::SafetensorsReader::Open(path));
  TY_ASSIGN_OR_RETURN(const model::SafetensorsEntry* const entry, file.Find("hessian"));
  if (entry->dtype != DType::kF32 || entry->shape != std::vector<int64_t>{columns, columns}) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": hessian is not F32 (", columns, ", ", columns, "), which the model needs"));
  }
  std::vector<float> values(static_cast<size_t>(columns * columns));
  std::memcpy(values.data(), file.Data(*entry), entry->bytes());
  return values;
}

}  // namespace trainyard::prune
