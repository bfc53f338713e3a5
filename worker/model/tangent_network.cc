#include "worker/model/tangent_network.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "kernels/pointwise/rope.h"

namespace trainyard::model {

using kernels::DirectionKey;
using kernels::Dual;
using kernels::Stream;

// Memory of one sequence. Views of the widest extent; `wide` holds qkv, then gate and up.
template <typename T>
struct TangentNetwork<T>::Activations {
  const std::vector<int32_t>* tokens = nullptr;
  std::vector<T> memory;
  Dual<T> residual, normed, wide, narrow, out;
};

template <typename T>
TangentNetwork<T>::TangentNetwork(const ModelConfig& config, const TangentOptions& options,
                                  std::vector<const T*> weights)
    : config_(config), options_(options), weights_(std::move(weights)) {
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
std::vector<T> TangentNetwork<T>::VectorDots(const std::string& name, int64_t size) const {
  std::vector<T> dots(static_cast<size_t>(options_.tangents * size));
  for (int64_t k = 0; k < options_.tangents; ++k) {
    kernels::FillDirection(
        DirectionKey{.seed = options_.seed, .direction = static_cast<uint32_t>(k), .tensor = Number(name)}, 0, size,
        dots.data() + k * size);
  }
  return dots;
}

template <typename T>
void TangentNetwork<T>::Norm(const std::string& name, Dual<T> Activations::*from, Dual<T> Activations::*to,
                             std::vector<Activations>& all, Stream& stream) const {
  const std::vector<T> dots = VectorDots(name, config_.hidden_size);
  const T* const w = Weight(name);
  stream.pool().ParallelFor(static_cast<int64_t>(all.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      Activations& a = all[static_cast<size_t>(i)];
      kernels::RmsNormTangent<T>({.x = a.*from, .w = w, .w_dots = dots.data(), .y = a.*to, .eps = config_.norm_eps});
    }
  });
}

template <typename T>
void TangentNetwork<T>::Linear(const std::string& prefix, int64_t out, Dual<T> Activations::*from,
                               Dual<T> Activations::*to, std::vector<Activations>& all, Stream& stream) const {
  const auto count = static_cast<int64_t>(all.size());
  if (count == 0) return;
  const T* const w = Weight(absl::StrCat(prefix, ".weight"));
  const T* const bias = Weight(absl::StrCat(prefix, ".bias"));
  std::vector<T> bias_dots;
  if (bias != nullptr) bias_dots = VectorDots(absl::StrCat(prefix, ".bias"), out);
  TY_CHECK(w != nullptr);
  const int64_t in = (all[0].*from).cols;
  stream.pool().ParallelFor(count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      Activations& a = all[static_cast<size_t>(i)];
      (a.*to).cols = out;
      kernels::LinearTangent<T>({.x = a.*from, .w = w, .bias = bias, .bias_dots = bias_dots.data(), .y = a.*to});
    }
  });
  std::vector<T> panel(static_cast<size_t>(options_.panel_rows * in));
  DirectionKey key{.seed = options_.seed, .tensor = Number(absl::StrCat(prefix, ".weight"))};
  for (int64_t k = 0; k < options_.tangents; ++k) {
    key.direction = static_cast<uint32_t>(k);
    for (int64_t row = 0; row < out; row += options_.panel_rows) {
      const int64_t rows = std::min(options_.panel_rows, out - row);
      stream.pool().ParallelFor(rows, 1, [&](int64_t begin, int64_t end) {
        kernels::FillDirection(key, (row + begin) * in, (end - begin) * in, panel.data() + begin * in);
      });
      stream.pool().ParallelFor(count, 1, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          const Activations& a = all[static_cast<size_t>(i)];
          kernels::AddWeightTangent(a.*from, panel.data(), row, rows, k, a.*to);
        }
      });
    }
  }
}

template <typename T>
void TangentNetwork<T>::RunBlock(int64_t layer, std::vector<Activations>& all, Stream& stream) const {
  const BlockShape shape = config_.block_shape(layer);
  const std::string prefix = absl::StrCat("layers.", layer, ".");
  const auto for_all = [&](auto&& body) {
    stream.pool().ParallelFor(static_cast<int64_t>(all.size()), 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) body(all[static_cast<size_t>(i)]);
    });
  };
  if (shape.has_attention()) {
    const int64_t width = config_.attention_width(shape);
    Norm(prefix + "attention_norm.weight", &Activations::residual, &Activations::normed, all, stream);
    Linear(prefix + "qkv", config_.qkv_width(shape), &Activations::normed, &Activations::wide, all, stream);
    for_all([&](Activations& a) {
      kernels::RopeTangent<T>({.qkv = a.wide,
                               .table = rope_table_.data(),
                               .turned_heads = shape.q_heads + shape.kv_heads,
                               .head_dim = config_.head_dim});
      a.narrow.cols = width;
      kernels::AttentionTangent<T>({.qkv = a.wide,
                                    .o = a.narrow,
                                    .q_heads = shape.q_heads,
                                    .kv_heads = shape.kv_heads,
                                    .head_dim = config_.head_dim,
                                    .kv_of_head = shape.kv_of_head.empty() ? nullptr : shape.kv_of_head.data()});
    });
    Linear(prefix + "output", config_.hidden_size, &Activations::narrow, &Activations::out, all, stream);
    for_all([](Activations& a) { AddDual(a.out, a.residual); });
  }
  if (shape.has_mlp()) {
    Norm(prefix + "mlp_norm.weight", &Activations::residual, &Activations::normed, all, stream);
    Linear(prefix + "gate_up", 2 * shape.intermediate, &Activations::normed, &Activations::wide, all, stream);
    for_all([&](Activations& a) {
      a.narrow.cols = shape.intermediate;
      SwigluTangent(a.wide, a.narrow);
    });
    Linear(prefix + "down", config_.hidden_size, &Activations::narrow, &Activations::out, all, stream);
    for_all([](Activations& a) { AddDual(a.out, a.residual); });
  }
}

template <typename T>
std::vector<std::vector<T>> TangentNetwork<T>::Run(const std::vector<std::vector<int32_t>>& sequences,
                                                   Stream& stream) const {
  const int64_t hidden = config_.hidden_size, parts = 1 + options_.tangents;
  int64_t widest = 0, middle = 0;
  for (int64_t layer = 0; layer < options_.blocks; ++layer) {
    const BlockShape shape = config_.block_shape(layer);
    widest = std::max({widest, config_.qkv_width(shape), 2 * shape.intermediate});
    middle = std::max({middle, config_.attention_width(shape), shape.intermediate});
  }
  std::vector<Activations> all;
  std::vector<size_t> places;
  for (size_t i = 0; i < sequences.size(); ++i) {
    const auto rows = static_cast<int64_t>(sequences[i].size());
    if (rows == 0) continue;
    TY_CHECK_LE(rows, options_.max_length);
    Activations a;
    a.tokens = &sequences[i];
    a.memory.resize(static_cast<size_t>(parts * rows * (3 * hidden + widest + middle)));
    T* next = a.memory.data();
    const auto take = [&](int64_t cols) {
      const Dual<T> view{next, options_.tangents, rows, cols};
      next += view.size();
      return view;
    };
    a.residual = take(hidden);
    a.normed = take(hidden);
    a.out = take(hidden);
    a.wide = take(widest);
    a.narrow = take(middle);
    all.push_back(std::move(a));
    places.push_back(i);
  }
  const T* const table = Weight("embedding.weight");
  const DirectionKey key{.seed = options_.seed, .tensor = Number("embedding.weight")};
  stream.pool().ParallelFor(static_cast<int64_t>(all.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      Activations& a = all[static_cast<size_t>(i)];
      for (const int32_t token : *a.tokens) {
        TY_CHECK_GE(token, 0);
        TY_CHECK_LT(token, config_.vocab_size);
      }
      kernels::EmbeddingTangent<T>({.tokens = a.tokens->data(), .table = table, .key = key, .y = a.residual});
    }
  });
  for (int64_t layer = 0; layer < options_.blocks; ++layer) RunBlock(layer, all, stream);
  Norm("final_norm.weight", &Activations::residual, &Activations::normed, all, stream);
  std::vector<std::vector<T>> results(sequences.size());
  for (size_t i = 0; i < all.size(); ++i) {
    const Dual<T>& normed = all[i].normed;
    results[places[i]].assign(normed.data, normed.data + normed.size());
  }
  return results;
}

template class TangentNetwork<float>;
template class TangentNetwork<double>;

}  // namespace trainyard::model
