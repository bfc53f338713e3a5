#include "worker/model/testing/reference_network.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/check.h"

namespace trainyard::model::testing {
namespace {

using Matrix = std::vector<double>;

// y (rows, out) = x (rows, in) w^T + bias.
Matrix Linear(const Matrix& x, const Matrix& w, const Matrix* bias, int64_t in) {
  const auto rows = static_cast<int64_t>(x.size()) / in, out = static_cast<int64_t>(w.size()) / in;
  Matrix y(static_cast<size_t>(rows * out));
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t o = 0; o < out; ++o) {
      double sum = bias != nullptr ? (*bias)[static_cast<size_t>(o)] : 0;
      for (int64_t i = 0; i < in; ++i) sum += x[static_cast<size_t>(r * in + i)] * w[static_cast<size_t>(o * in + i)];
      y[static_cast<size_t>(r * out + o)] = sum;
    }
  }
  return y;
}

Matrix Norm(const Matrix& x, const Matrix& w, double eps) {
  const size_t cols = w.size();
  Matrix y(x.size());
  for (size_t row = 0; row < x.size(); row += cols) {
    double squares = 0;
    for (size_t c = 0; c < cols; ++c) squares += x[row + c] * x[row + c];
    const double inverse = 1 / std::sqrt(squares / static_cast<double>(cols) + eps);
    for (size_t c = 0; c < cols; ++c) y[row + c] = x[row + c] * inverse * w[c];
  }
  return y;
}

double Frequency(const ModelConfig& config, int64_t pair) {
  const double plain =
      std::pow(config.rope_theta, -2.0 * static_cast<double>(pair) / static_cast<double>(config.head_dim));
  const kernels::RopeScaling& scaling = config.rope_scaling;
  if (scaling.factor == 1) return plain;
  const double wavelength = 2 * std::numbers::pi / plain;
  const auto old_length = static_cast<double>(scaling.original_max_positions);
  if (wavelength < old_length / scaling.high_freq_factor) return plain;
  if (wavelength > old_length / scaling.low_freq_factor) return plain / scaling.factor;
  const double smooth =
      (old_length / wavelength - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor);
  return (1 - smooth) * plain / scaling.factor + smooth * plain;
}

Matrix Attention(const ModelConfig& config, const BlockShape& block, Matrix qkv, int64_t batch) {
  const int64_t width = (block.q_heads + 2 * block.kv_heads) * config.head_dim, head = config.head_dim, half = head / 2;
  const int64_t rows = static_cast<int64_t>(qkv.size()) / width, seq = rows / batch;
  const auto at = [&](int64_t row, int64_t h, int64_t d) -> double& {
    return qkv[static_cast<size_t>(row * width + h * head + d)];
  };
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t h = 0; h < block.q_heads + block.kv_heads; ++h) {
      for (int64_t i = 0; i < half; ++i) {
        const double angle = static_cast<double>(row % seq) * Frequency(config, i);
        const double a = at(row, h, i), b = at(row, h, i + half);
        at(row, h, i) = a * std::cos(angle) - b * std::sin(angle);
        at(row, h, i + half) = b * std::cos(angle) + a * std::sin(angle);
      }
    }
  }
  Matrix out(static_cast<size_t>(rows * block.q_heads * head));
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t first = row / seq * seq;
    for (int64_t h = 0; h < block.q_heads; ++h) {
      const int64_t kv =
          block.kv_of_head.empty() ? h / (block.q_heads / block.kv_heads) : block.kv_of_head[static_cast<size_t>(h)];
      const int64_t k_head = block.q_heads + kv;
      const int64_t v_head = k_head + block.kv_heads;
      std::vector<double> weight;
      double sum = 0;
      for (int64_t s = first; s <= row; ++s) {
        double score = 0;
        for (int64_t d = 0; d < head; ++d) score += at(row, h, d) * at(s, k_head, d);
        weight.push_back(std::exp(score / std::sqrt(static_cast<double>(head))));
        sum += weight.back();
      }
      for (int64_t d = 0; d < head; ++d) {
        double value = 0;
        for (int64_t s = first; s <= row; ++s) value += weight[static_cast<size_t>(s - first)] * at(s, v_head, d);
        out[static_cast<size_t>((row * block.q_heads + h) * head + d)] = value / sum;
      }
    }
  }
  return out;
}

void AddTo(Matrix* x, const Matrix& y) {
  for (size_t i = 0; i < x->size(); ++i) (*x)[i] += y[i];
}

}  // namespace

std::vector<double> ReferenceLogits(const ModelConfig& config, const std::vector<std::vector<double>>& weights,
                                    const std::vector<int32_t>& tokens, int64_t batch) {
  size_t next = 0;
  const auto take = [&]() -> const Matrix& { return weights.at(next++); };
  const int64_t hidden = config.hidden_size;

  const Matrix& table = take();
  Matrix x;
  for (const int32_t token : tokens) x.insert(x.end(), &table[token * hidden], &table[token * hidden] + hidden);
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    const BlockShape block = config.block_shape(layer);
    if (block.q_heads > 0) {
      const Matrix normed = Norm(x, take(), config.norm_eps);
      const Matrix& qkv = take();
      const Matrix* const qkv_bias = config.qkv_bias ? &take() : nullptr;
      const Matrix attention = Attention(config, block, Linear(normed, qkv, qkv_bias, hidden), batch);
      const Matrix& output = take();
      const Matrix* const output_bias = config.output_bias ? &take() : nullptr;
      AddTo(&x, Linear(attention, output, output_bias, block.q_heads * config.head_dim));
    }
    if (block.intermediate == 0) continue;

    const auto wide = static_cast<size_t>(block.intermediate);
    const Matrix mlp_normed = Norm(x, take(), config.norm_eps);
    const Matrix gate_up = Linear(mlp_normed, take(), nullptr, hidden);
    Matrix activated(tokens.size() * wide);
    for (size_t i = 0; i < activated.size(); ++i) {
      const size_t row = i / wide * 2 * wide;
      const double gate = gate_up[row + i % wide];
      activated[i] = gate / (1 + std::exp(-gate)) * gate_up[row + wide + i % wide];
    }
    AddTo(&x, Linear(activated, take(), nullptr, block.intermediate));
  }
  const Matrix normed = Norm(x, take(), config.norm_eps);
  const Matrix& head = config.tied_head ? weights[0] : take();
  TY_CHECK_EQ(next, weights.size());
  return Linear(normed, head, nullptr, hidden);
}

double ReferenceLoss(const ModelConfig& config, const std::vector<std::vector<double>>& weights,
                     const std::vector<int32_t>& tokens, const std::vector<int32_t>& targets, int64_t batch) {
  const std::vector<double> logits = ReferenceLogits(config, weights, tokens, batch);
  const auto vocab = static_cast<size_t>(config.vocab_size);
  double sum = 0, count = 0;
  for (size_t row = 0; row < targets.size(); ++row) {
    if (targets[row] < 0) continue;
    const double* const z = &logits[row * vocab];
    const double top = *std::max_element(z, z + vocab);
    double exps = 0;
    for (size_t j = 0; j < vocab; ++j) exps += std::exp(z[j] - top);
    sum += top + std::log(exps) - z[targets[row]];
    count += 1;
  }
  return sum / count;
}

ModelConfig TinyLlama() {
  ModelConfig config;
  config.vocab_size = 37;
  config.hidden_size = 24;
  config.intermediate_size = 40;
  config.layers = 2;
  config.q_heads = 4;
  config.kv_heads = 2;
  config.head_dim = 6;
  config.max_positions = 512;
  return config;
}

ModelConfig TinyQwen2() {
  ModelConfig config = TinyLlama();
  config.rope_theta = 1e6;
  config.norm_eps = 1e-6;
  config.qkv_bias = true;
  config.tied_head = true;
  return config;
}

ModelConfig TinyLlama3() {
  ModelConfig config = TinyLlama();
  config.layers = 3;
  config.kv_heads = 1;
  config.head_dim = 8;
  config.qkv_bias = config.output_bias = true;
  config.rope_scaling = {.factor = 8, .low_freq_factor = 1, .high_freq_factor = 4, .original_max_positions = 16};
  return config;
}

ModelConfig TinyPruned() {
  ModelConfig config = TinyLlama();
  config.layers = 6;
  config.qkv_bias = config.output_bias = true;
  config.blocks = {
      {.q_heads = 3, .kv_heads = 2, .intermediate = 17, .kv_of_head = {0, 1, 1}},
      {.q_heads = 0, .kv_heads = 0, .intermediate = 40, .kv_of_head = {}},
      {.q_heads = 0, .kv_heads = 0, .intermediate = 0, .kv_of_head = {}},
      {.q_heads = 1, .kv_heads = 2, .intermediate = 0, .kv_of_head = {1}},
      {.q_heads = 5, .kv_heads = 3, .intermediate = 8, .kv_of_head = {2, 0, 2, 2, 0}},
      {.q_heads = 4, .kv_heads = 2, .intermediate = 33, .kv_of_head = {}},
  };
  return config;
}

ModelConfig TinyPrunedEnds() {
  ModelConfig config = TinyQwen2();
  config.layers = 4;
  config.blocks = {
      {},
      {.q_heads = 0, .kv_heads = 0, .intermediate = 12, .kv_of_head = {}},
      {.q_heads = 2, .kv_heads = 2, .intermediate = 0, .kv_of_head = {0, 0}},
      {},
  };
  return config;
}

}  // namespace trainyard::model::testing
