#include "kernels/attention/attention_reference.h"

#include <algorithm>
#include <cmath>

namespace trainyard::kernels::testing {
namespace {

// Where head `head` of token (b, t) begins; k heads follow the q heads, v heads those.
size_t At(const AttentionShape& s, int64_t b, int64_t t, int64_t head) {
  return static_cast<size_t>((b * s.seq + t) * s.packed_width() + head * s.head_dim);
}

size_t OutputAt(const AttentionShape& s, int64_t b, int64_t t, int64_t head) {
  return static_cast<size_t>(((b * s.seq + t) * s.q_heads + head) * s.head_dim);
}

double Dot(const double* x, const double* y, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += x[i] * y[i];
  return sum;
}

// The weights of query t on keys 0..t; returns their log-sum-exp.
double Weights(const AttentionShape& s, const std::vector<double>& qkv, double scale, int64_t b, int64_t head,
               int64_t t, std::vector<double>& weights) {
  const int64_t k_head = s.q_heads + s.kv_head(head);
  weights.assign(static_cast<size_t>(t + 1), 0.0);
  for (int64_t j = 0; j <= t; ++j) {
    weights[static_cast<size_t>(j)] = scale * Dot(&qkv[At(s, b, t, head)], &qkv[At(s, b, j, k_head)], s.head_dim);
  }
  const double max = *std::max_element(weights.begin(), weights.end());
  double sum = 0;
  for (double w : weights) sum += std::exp(w - max);
  const double lse = max + std::log(sum);
  for (double& w : weights) w = std::exp(w - lse);
  return lse;
}

}  // namespace

AttentionReference ReferenceAttention(const AttentionShape& s, const std::vector<double>& qkv, double scale) {
  AttentionReference result;
  result.o.assign(static_cast<size_t>(s.batch * s.seq * s.q_heads * s.head_dim), 0.0);
  std::vector<double> weights;
  for (int64_t b = 0; b < s.batch; ++b) {
    for (int64_t head = 0; head < s.q_heads; ++head) {
      for (int64_t t = 0; t < s.seq; ++t) {
        result.lse.push_back(Weights(s, qkv, scale, b, head, t, weights));
        double* o = &result.o[OutputAt(s, b, t, head)];
        for (int64_t j = 0; j <= t; ++j) {
          const double* v = &qkv[At(s, b, j, s.q_heads + s.kv_heads + s.kv_head(head))];
          for (int64_t c = 0; c < s.head_dim; ++c) o[c] += weights[static_cast<size_t>(j)] * v[c];
        }
      }
    }
  }
  return result;
}

std::vector<double> ReferenceAttentionGradient(const AttentionShape& s, const std::vector<double>& qkv,
                                               const std::vector<double>& o, const std::vector<double>& dout,
                                               double scale) {
  std::vector<double> gradient(qkv.size(), 0.0);
  std::vector<double> weights;
  for (int64_t b = 0; b < s.batch; ++b) {
    for (int64_t head = 0; head < s.q_heads; ++head) {
      const int64_t k_head = s.q_heads + s.kv_head(head);
      const int64_t v_head = k_head + s.kv_heads;
      for (int64_t t = 0; t < s.seq; ++t) {
        Weights(s, qkv, scale, b, head, t, weights);
        const double* d_o = &dout[OutputAt(s, b, t, head)];
        const double d = Dot(d_o, &o[OutputAt(s, b, t, head)], s.head_dim);
        for (int64_t j = 0; j <= t; ++j) {
          const double w = weights[static_cast<size_t>(j)];
          const double d_score = w * (Dot(d_o, &qkv[At(s, b, j, v_head)], s.head_dim) - d) * scale;
          for (int64_t c = 0; c < s.head_dim; ++c) {
            const size_t i = static_cast<size_t>(c);
            gradient[At(s, b, t, head) + i] += d_score * qkv[At(s, b, j, k_head) + i];
            gradient[At(s, b, j, k_head) + i] += d_score * qkv[At(s, b, t, head) + i];
            gradient[At(s, b, j, v_head) + i] += w * d_o[i];
          }
        }
      }
    }
  }
  return gradient;
}

}  // namespace trainyard::kernels::testing
