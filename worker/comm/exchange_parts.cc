#include "worker/comm/exchange_parts.h"

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "kernels/core/philox.h"
#include "worker/comm/layer_types.h"
#include "worker/comm/make_codec.h"

namespace trainyard::comm {
namespace {

std::vector<ExchangeTensor> TensorsOf(const std::vector<GradientLayer>& layers) {
  std::vector<ExchangeTensor> tensors;
  std::set<std::string> names;
  for (const GradientLayer& layer : layers) {
    for (const GradientTensor& tensor : layer.tensors) {
      ExchangeTensor made{tensor.name, tensor.gradient.size(), tensor.dims, tensor.gradient.size(), 1};
      if (tensor.gradient.rank() > 1 && tensor.gradient.dim(0) > 0) {
        made.rows = tensor.gradient.dim(0);
        made.cols = made.elements / made.rows;
      }
      // State needs a name of its own.
      if (made.name.empty() || !names.insert(made.name).second) made.name = absl::StrCat("tensor", tensors.size());
      tensors.push_back(std::move(made));
    }
  }
  return tensors;
}

}  // namespace

absl::StatusOr<std::unique_ptr<ExchangeParts>> ExchangeParts::Make(const ExchangeOptions& options,
                                                                   const std::vector<GradientLayer>& layers, int rank,
                                                                   int ranks, bool has_memory) {
  std::unique_ptr<ExchangeParts> parts(new ExchangeParts(options, rank, ranks));
  parts->has_memory_ = has_memory;
  parts->tensors_ = TensorsOf(layers);
  const spec::CommunicationOptions& communication = options.communication;

  std::vector<std::string> names;
  for (const ExchangeTensor& tensor : parts->tensors_) names.push_back(tensor.name);
  TY_ASSIGN_OR_RETURN(LayerTypes types, AssignLayerTypes(communication, names));
  std::vector<CodecSet::Tensor> coded;
  for (size_t i = 0; i < names.size(); ++i) {
    const ExchangeTensor& tensor = parts->tensors_[i];
    const spec::CodecOptions& codec = types.types[static_cast<size_t>(types.of_tensor[i])].codec;
    const bool is_coded =
        ranks > 1 && parts->power_sgd() == nullptr && IsCoded(communication, codec, tensor.elements, tensor.dims);
    coded.push_back({types.of_tensor[i], tensor.elements, is_coded});
  }
  parts->codecs_ = std::make_unique<CodecSet>(communication, options.make_codec ? options.make_codec : MakeCodec,
                                              std::move(types.types), std::move(coded));

  const size_t count = names.size();
  parts->feedback_.resize(count);
  parts->factors_.resize(count);
  parts->windows_.resize(count);
  for (size_t i = 0; i < count; ++i) {
    const int index = static_cast<int>(i);
    const ExchangeTensor& tensor = parts->tensors_[i];
    const bool is_factorised = parts->IsFactorised(index);
    const bool is_coded = parts->codecs_->is_coded(index);
    if (is_factorised || (is_coded && communication.error_feedback)) {
      TY_ASSIGN_OR_RETURN(parts->feedback_[i], parts->Allocate("feedback", tensor, {tensor.elements}, true));
    }
    if (is_factorised) {
      const int64_t rank_of_factors = parts->power_sgd()->rank;
      TY_ASSIGN_OR_RETURN(parts->factors_[i],
                          parts->Allocate("power_sgd.q", tensor, {rank_of_factors, tensor.cols}, false));
    }
    const auto type = static_cast<size_t>(parts->codecs_->type_of(index));
    const bool is_maxmin = std::holds_alternative<spec::MaxminCodec>(parts->codecs_->types()[type].codec);
    if (is_coded && is_maxmin && communication.plan && rank == 0) {
      TY_ASSIGN_OR_RETURN(parts->windows_[i], parts->Allocate("window", tensor, {tensor.elements}, true));
    }
  }
  parts->FillFactors();
  parts->first_text_ = parts->codecs_->Text();
  return parts;
}

void ExchangeParts::FillFactors() {
  for (size_t i = 0; i < factors_.size(); ++i) {
    if (factors_[i] == nullptr) continue;
    const kernels::PhiloxKey key{
        .seed = options_.seed, .purpose = kernels::kRandomPowerSgd, .tensor = static_cast<uint32_t>(i)};
    for (int64_t e = 0; e < power_sgd()->rank * tensors_[i].cols; ++e) {
      factors_[i][e] = kernels::RandomNormal(key, static_cast<uint64_t>(e));
    }
  }
}

void ExchangeParts::Reset() {
  for (const NamedState& state : local_) std::fill_n(state.tensor.as<float>(), state.tensor.size(), 0.0f);
  FillFactors();
  TY_CHECK_OK(codecs_->Restore(first_text_));
}

const spec::PowerSgdCodec* ExchangeParts::power_sgd() const {
  return std::get_if<spec::PowerSgdCodec>(&options_.communication.codec);
}

bool ExchangeParts::IsFactorised(int tensor) const {
  const spec::PowerSgdCodec* const options = power_sgd();
  if (options == nullptr || ranks_ == 1) return false;
  const ExchangeTensor& t = tensors_[static_cast<size_t>(tensor)];
  if (t.dims <= 1 || t.elements < options_.communication.min_elements) return false;
  const auto factors = static_cast<double>(options->rank) * static_cast<double>(t.rows + t.cols);
  return factors * options->min_compression < static_cast<double>(t.elements);
}

absl::StatusOr<float*> ExchangeParts::Allocate(const std::string& what, const ExchangeTensor& tensor,
                                               std::vector<int64_t> shape, bool is_local) {
  int64_t elements = 1;
  for (int64_t extent : shape) elements *= extent;
  bytes_ += elements * static_cast<int64_t>(sizeof(float));
  if (!has_memory_) return static_cast<float*>(nullptr);
  memory_.emplace_back(options_.device() == kernels::Device::kCuda ? kernels::MemoryKind::kDevice
                                                                   : kernels::MemoryKind::kHost);
  TY_RETURN_IF_ERROR(memory_.back().Grow(std::max<int64_t>(1, elements) * static_cast<int64_t>(sizeof(float))));
  float* const data = memory_.back().floats();
  const kernels::TensorView view = shape.size() == 2
                                       ? kernels::TensorView(data, kernels::DType::kF32, {shape[0], shape[1]})
                                       : kernels::TensorView(data, kernels::DType::kF32, {shape[0]});
  (is_local ? local_ : replicated_).push_back({absl::StrCat("exchange/", what, "/", tensor.name), view});
  return data;
}

absl::StatusOr<std::unique_ptr<ExchangeState>> ExchangeState::Create(const ExchangeOptions& options,
                                                                     const std::vector<GradientLayer>& layers, int rank,
                                                                     int ranks) {
  return ExchangeParts::Make(options, layers, rank, ranks, /*has_memory=*/true);
}

}  // namespace trainyard::comm
