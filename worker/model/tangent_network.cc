#include "worker/model/tangent_network.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "kernels/pointwise/rope.h"

namespace trainyard::model {

using kernels::DirectionKey;
using kernels::Dual;
using kernels::Stream;

// Views of one sequence, of the widest extent; `wide` holds qkv, then gate and up.
template <typename T>
struct TangentNetwork<T>::Activations {
  const int32_t* tokens = nullptr;
  Dual<T> residual, normed, wide, narrow, out;
};

namespace {

// Views begin at multiples of this, so that a sequence has the same alignment wherever it lies.
constexpr int64_t kAlignment = 64;  // numbers
constexpr int64_t kViews = 5;       // of a sequence

int64_t Aligned(int64_t count) {
  return (count + kAlignment - 1) / kAlignment * kAlignment;
}

}  // namespace

template <typename T>
TangentNetwork<T>::TangentNetwork(const ModelConfig& config, const TangentOptions& options,
                                  std::vector<const T*> weights)
    : config_(config), options_(options), weights_(std::move(weights)), arena_(kernels::Arena::CountOnly()) {
  TY_CHECK_LE(options.blocks, config.layers);
  TY_CHECK_LE(options.max_length, config.max_positions);
  const std::vector<Parameter> parameters = ListParameters(config);
  TY_CHECK_EQ(parameters.size(), weights_.size());
  for (size_t i = 0; i < parameters.size(); ++i) numbers_[parameters[i].name] = static_cast<uint32_t>(i);
  rope_table_.resize(static_cast<size_t>(options.max_length * config.head_dim));
  Stream stream(1);
  RopeTable({.table = {rope_table_.data(), kernels::DType::kF32, {options.max_length, config.head_dim / 2, 2}},
             .theta = config.rope_theta,
             .head_dim = config.head_dim,
             .scaling = config.rope_scaling},
            stream);
  widths_.in = config.hidden_size;
  for (int64_t layer = 0; layer < options.blocks; ++layer) {
    const BlockShape shape = config.block_shape(layer);
    widths_.wide = std::max({widths_.wide, config.qkv_width(shape), 2 * shape.intermediate});
    widths_.narrow = std::max({widths_.narrow, config.attention_width(shape), shape.intermediate});
    widths_.q_heads = std::max<int64_t>(widths_.q_heads, shape.q_heads);
  }
  widths_.in = std::max(widths_.in, widths_.narrow);
}

template <typename T>
const T* TangentNetwork<T>::Weight(const std::string& name) const {
  const auto found = numbers_.find(name);
  return found == numbers_.end() ? nullptr : weights_[found->second];
}

template <typename T>
uint32_t TangentNetwork<T>::Number(const std::string& name) const {
  const auto found = numbers_.find(name);
  TY_CHECK(found != numbers_.end());
  return found->second;
}

template <typename T>
int64_t TangentNetwork<T>::ActivationNumbers(const Extents& extents) const {
  const int64_t token = (1 + options_.tangents) * (3 * config_.hidden_size + widths_.wide + widths_.narrow);
  return extents.tokens * token + extents.sequences * kViews * kAlignment;
}

template <typename T>
typename TangentNetwork<T>::Memory TangentNetwork<T>::Lay(const Extents& extents, kernels::Arena& arena) const {
  const auto numbers = [&](int64_t count) {
    return static_cast<T*>(
        arena.Allocate("tangents", kernels::DType::kU8, {count * static_cast<int64_t>(sizeof(T))}).data());
  };
  const auto table = static_cast<int64_t>(rope_table_.size());
  Memory memory;
  memory.numbers = numbers(ActivationNumbers(extents));
  memory.dots = numbers(options_.tangents * std::max(config_.hidden_size, widths_.wide));
  memory.panel = numbers(options_.tangents > 0 ? options_.panel_rows * widths_.in : 0);
  memory.rope_table = arena.Allocate("tangents", kernels::DType::kF32, {table}).template as<float>();
  memory.tokens = arena.AllocateShared("tangents", kernels::DType::kI32, {extents.tokens}).template as<int32_t>();
  if (options_.device == kernels::Device::kCpu) return memory;
  memory.product = numbers(options_.tangents > 0 ? options_.panel_rows * extents.longest : 0);
  memory.lse =
      arena.Allocate("tangents", kernels::DType::kF32, {widths_.q_heads * extents.longest}).template as<float>();
  return memory;
}

template <typename T>
absl::Status TangentNetwork<T>::Reserve(const Extents& extents) {
  if (extents.sequences <= reserved_.sequences && extents.tokens <= reserved_.tokens &&
      extents.longest <= reserved_.longest) {
    return absl::OkStatus();
  }
  const Extents wanted = {std::max(extents.sequences, reserved_.sequences), std::max(extents.tokens, reserved_.tokens),
                          std::max(extents.longest, reserved_.longest)};
  reserved_ = {};
  arena_ = kernels::Arena::CountOnly(options_.device);  // the old memory goes first
  kernels::Arena counting = kernels::Arena::CountOnly(options_.device);
  Lay(wanted, counting);
  TY_ASSIGN_OR_RETURN(arena_, kernels::Arena::Reserve(counting));
  memory_ = Lay(wanted, arena_);
  std::copy(rope_table_.begin(), rope_table_.end(), memory_.rope_table);
  reserved_ = wanted;
  return absl::OkStatus();
}

template <typename T>
template <typename Body>
void TangentNetwork<T>::ForAll(std::vector<Activations>& all, Stream& stream, const Body& body) const {
  if (stream.device() != kernels::Device::kCpu) {
    for (Activations& a : all) body(a);
    return;
  }
  stream.pool().ParallelFor(static_cast<int64_t>(all.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) body(all[static_cast<size_t>(i)]);
  });
}

template <typename T>
void TangentNetwork<T>::FillVectorDots(const std::string& name, int64_t size, Stream& stream) const {
  DirectionKey key{.seed = options_.seed, .tensor = Number(name)};
  for (int64_t k = 0; k < options_.tangents; ++k) {
    key.direction = static_cast<uint32_t>(k);
    FillDirection(key, 0, size, memory_.dots + k * size, stream);
  }
}

template <typename T>
void TangentNetwork<T>::Norm(const std::string& name, Dual<T> Activations::*from, Dual<T> Activations::*to,
                             std::vector<Activations>& all, Stream& stream) const {
  FillVectorDots(name, config_.hidden_size, stream);
  const T* const w = Weight(name);
  ForAll(all, stream, [&](Activations& a) {
    kernels::RmsNormTangent<T>({.x = a.*from, .w = w, .w_dots = memory_.dots, .y = a.*to, .eps = config_.norm_eps},
                               stream);
  });
}

template <typename T>
void TangentNetwork<T>::Linear(const std::string& prefix, int64_t out, Dual<T> Activations::*from,
                               Dual<T> Activations::*to, std::vector<Activations>& all, Stream& stream) const {
  if (all.empty()) return;
  const T* const w = Weight(absl::StrCat(prefix, ".weight"));
  const T* const bias = Weight(absl::StrCat(prefix, ".bias"));
  if (bias != nullptr) FillVectorDots(absl::StrCat(prefix, ".bias"), out, stream);
  TY_CHECK(w != nullptr);
  const int64_t in = (all[0].*from).cols;
  ForAll(all, stream, [&](Activations& a) {
    (a.*to).cols = out;
    kernels::LinearTangent<T>({.x = a.*from, .w = w, .bias = bias, .bias_dots = memory_.dots, .y = a.*to}, stream);
  });
  DirectionKey key{.seed = options_.seed, .tensor = Number(absl::StrCat(prefix, ".weight"))};
  for (int64_t k = 0; k < options_.tangents; ++k) {
    key.direction = static_cast<uint32_t>(k);
    for (int64_t row = 0; row < out; row += options_.panel_rows) {
      const int64_t rows = std::min(options_.panel_rows, out - row);
      FillDirection(key, row * in, rows * in, memory_.panel, stream);
      ForAll(all, stream, [&](Activations& a) {
        kernels::AddWeightTangent<T>({.x = a.*from,
                                      .panel = memory_.panel,
                                      .row_begin = row,
                                      .count = rows,
                                      .tangent = k,
                                      .y = a.*to,
                                      .product = memory_.product},
                                     stream);
      });
    }
  }
}

template <typename T>
void TangentNetwork<T>::RunBlock(int64_t layer, std::vector<Activations>& all, Stream& stream) const {
  const BlockShape shape = config_.block_shape(layer);
  const std::string prefix = absl::StrCat("layers.", layer, ".");
  if (shape.has_attention()) {
    const int64_t width = config_.attention_width(shape);
    Norm(prefix + "attention_norm.weight", &Activations::residual, &Activations::normed, all, stream);
    Linear(prefix + "qkv", config_.qkv_width(shape), &Activations::normed, &Activations::wide, all, stream);
    ForAll(all, stream, [&](Activations& a) {
      kernels::RopeTangent<T>({.qkv = a.wide,
                               .table = memory_.rope_table,
                               .turned_heads = shape.q_heads + shape.kv_heads,
                               .head_dim = config_.head_dim},
                              stream);
      a.narrow.cols = width;
      kernels::AttentionTangent<T>({.qkv = a.wide,
                                    .o = a.narrow,
                                    .q_heads = shape.q_heads,
                                    .kv_heads = shape.kv_heads,
                                    .head_dim = config_.head_dim,
                                    .kv_of_head = shape.kv_of_head.empty() ? nullptr : shape.kv_of_head.data(),
                                    .lse = memory_.lse},
                                   stream);
    });
    Linear(prefix + "output", config_.hidden_size, &Activations::narrow, &Activations::out, all, stream);
    ForAll(all, stream, [&](Activations& a) { AddDual(a.out, a.residual, stream); });
  }
  if (shape.has_mlp()) {
    Norm(prefix + "mlp_norm.weight", &Activations::residual, &Activations::normed, all, stream);
    Linear(prefix + "gate_up", 2 * shape.intermediate, &Activations::normed, &Activations::wide, all, stream);
    ForAll(all, stream, [&](Activations& a) {
      a.narrow.cols = shape.intermediate;
      SwigluTangent(a.wide, a.narrow, stream);
    });
    Linear(prefix + "down", config_.hidden_size, &Activations::narrow, &Activations::out, all, stream);
    ForAll(all, stream, [&](Activations& a) { AddDual(a.out, a.residual, stream); });
  }
}

template <typename T>
absl::Status TangentNetwork<T>::Run(const std::vector<std::vector<int32_t>>& sequences, Stream& stream,
                                    absl::FunctionRef<void(size_t, const Dual<T>&)> take) {
  TY_CHECK(stream.device() == options_.device);
  TY_RETURN_IF_ERROR(stream.Synchronize());  // the memory may be in use
  Extents extents;
  for (const std::vector<int32_t>& sequence : sequences) {
    const auto rows = static_cast<int64_t>(sequence.size());
    TY_CHECK_LE(rows, options_.max_length);
    extents.sequences += rows > 0 ? 1 : 0;
    extents.tokens += rows;
    extents.longest = std::max(extents.longest, rows);
  }
  TY_RETURN_IF_ERROR(Reserve(extents));
  std::vector<Activations> all;
  std::vector<size_t> places;
  T* next = memory_.numbers;
  int32_t* next_token = memory_.tokens;
  for (size_t i = 0; i < sequences.size(); ++i) {
    if (sequences[i].empty()) continue;
    for (const int32_t token : sequences[i]) {
      TY_CHECK_GE(token, 0);
      TY_CHECK_LT(token, config_.vocab_size);
    }
    const auto take_view = [&](int64_t cols) {
      const Dual<T> view{next, options_.tangents, static_cast<int64_t>(sequences[i].size()), cols};
      next += Aligned(view.size());
      return view;
    };
    Activations a;
    a.tokens = next_token;
    next_token = std::copy(sequences[i].begin(), sequences[i].end(), next_token);
    a.residual = take_view(config_.hidden_size);
    a.normed = take_view(config_.hidden_size);
    a.out = take_view(config_.hidden_size);
    a.wide = take_view(widths_.wide);
    a.narrow = take_view(widths_.narrow);
    all.push_back(a);
    places.push_back(i);
  }
  const T* const table = Weight("embedding.weight");
  const DirectionKey key{.seed = options_.seed, .tensor = Number("embedding.weight")};
  ForAll(all, stream, [&](Activations& a) {
    kernels::EmbeddingTangent<T>({.tokens = a.tokens, .table = table, .key = key, .y = a.residual}, stream);
  });
  for (int64_t layer = 0; layer < options_.blocks; ++layer) RunBlock(layer, all, stream);
  Norm("final_norm.weight", &Activations::residual, &Activations::normed, all, stream);
  for (size_t i = 0; i < all.size(); ++i) take(places[i], all[i].normed);
  return absl::OkStatus();
}

template <typename T>
std::vector<std::vector<T>> TangentNetwork<T>::Run(const std::vector<std::vector<int32_t>>& sequences, Stream& stream) {
  std::vector<Dual<T>> states(sequences.size());
  TY_CHECK_OK(Run(sequences, stream, [&](size_t i, const Dual<T>& taken) { states[i] = taken; }));
  TY_CHECK_OK(stream.Synchronize());
  std::vector<std::vector<T>> results;
  for (const Dual<T>& taken : states) results.emplace_back(taken.data, taken.data + taken.size());
  return results;
}

template class TangentNetwork<float>;
template class TangentNetwork<double>;

}  // namespace trainyard::model
