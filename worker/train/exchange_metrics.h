// What the gradient exchange did, as metrics of a step: for every job kind that exchanges gradients.
//
//   comm_seconds, comm_exposed_seconds   the exchange, and what of it the step had to wait for
//   quant_seconds                        of comm_seconds, encoding and decoding
//   comm_bytes                           sent by this rank to the others, all of it
//   comm_phase1_bytes, comm_phase2_bytes of it, pieces on their way to the owners, and sums
//   comm_phase1_bytes_<codec>, ..2_..    of these, what each codec made; "none": not coded
//   comm_control_bytes                   of comm_bytes, levels, bits, tables and hashes
//   compression_ratio                    what f32 would have sent, over phases 1 and 2
//   quant_nmse_<layer type>              |decoded - value|^2 / |value|^2 of what this rank encoded in phase 1, measured
//                                        every 16 steps and repeated between
//   bits_<layer type>                    mean bits of a value of the type's coded tensors
//   plan_epoch                           how often levels, bits or code tables have changed
#pragma once

#include <map>
#include <string>

#include "worker/comm/gradient_exchange.h"

namespace trainyard::train {

class ExchangeMetrics {
 public:
  // Adds what has happened since the last call. Nothing for one rank or no exchange (null).
  void Add(const comm::GradientExchange* exchange, int ranks, std::map<std::string, double>* metrics);

 private:
  comm::ExchangeStats last_;
};

}  // namespace trainyard::train
