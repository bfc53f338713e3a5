#include "worker/train/exchange_metrics.h"

#include "absl/strings/str_cat.h"

namespace trainyard::train {

void ExchangeMetrics::Add(const comm::GradientExchange* exchange, int ranks, std::map<std::string, double>* metrics) {
  if (exchange == nullptr || ranks == 1) return;
  const comm::ExchangeStats now = exchange->stats();
  std::map<std::string, double>& out = *metrics;
  const auto phase1 = static_cast<double>(now.phase1_bytes - last_.phase1_bytes);
  const auto phase2 = static_cast<double>(now.phase2_bytes - last_.phase2_bytes);
  const auto exchanged = static_cast<double>(now.gradient_bytes - last_.gradient_bytes);
  out["comm_seconds"] = now.exchange_seconds - last_.exchange_seconds;
  out["comm_exposed_seconds"] = now.exposed_seconds - last_.exposed_seconds;
  out["quant_seconds"] = now.codec_seconds - last_.codec_seconds;
  out["comm_bytes"] = static_cast<double>(now.bytes_sent - last_.bytes_sent);
  out["comm_phase1_bytes"] = phase1;
  out["comm_phase2_bytes"] = phase2;
  for (const auto& [codec, bytes] : now.phase1_by_codec) {
    out[absl::StrCat("comm_phase1_bytes_", codec)] = static_cast<double>(bytes - last_.phase1_by_codec[codec]);
  }
  for (const auto& [codec, bytes] : now.phase2_by_codec) {
    out[absl::StrCat("comm_phase2_bytes_", codec)] = static_cast<double>(bytes - last_.phase2_by_codec[codec]);
  }
  out["comm_control_bytes"] = static_cast<double>(now.control_bytes - last_.control_bytes);
  // Of what would travel uncoded; the two differ by grains of a part even for identity.
  if (phase1 + phase2 > 0) out["compression_ratio"] = 2.0 * (ranks - 1) / ranks * exchanged / (phase1 + phase2);
  for (const auto& [type, error] : now.squared_error) out[absl::StrCat("quant_nmse_", type)] = error;
  for (const auto& [type, bits] : now.bits) out[absl::StrCat("bits_", type)] = bits;
  out["plan_epoch"] = static_cast<double>(now.plan_epoch);
  last_ = now;
}

}  // namespace trainyard::train
