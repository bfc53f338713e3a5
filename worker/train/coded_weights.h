// The weights of a training run, some of which may exist as codes and scales only: those that the optimizer updates in
// that form (EcoOptions). Only block matrices can be: everything else is read by ops that want numbers.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "kernels/core/arena.h"
#include "kernels/quant/coded_matrix.h"
#include "proto/spec/training_options.h"
#include "worker/comm/partition.h"
#include "worker/model/config.h"
#include "worker/model/parameters.h"
#include "worker/optim/optimizer.h"

namespace trainyard::train {

// InvalidArgument if the optimizer's format does not fit a matrix that it is to keep as codes, or if there is none.
absl::Status CheckCodedWeights(const spec::OptimizerOptions& options, const std::vector<model::Parameter>& parameters);

struct TrainedWeights {
  // As the network reads them, in the storage dtype; those that are coded have no data.
  model::NetworkTensors values;
  // f32 masters of those that are neither coded nor f32; empty views elsewhere. One-dimensional if they are parts.
  std::vector<kernels::TensorView> masters;
  std::vector<comm::Part> parts;  // by parameter, what of it the master is; empty: all
  // Empty for those that are not coded. Scales have one entry for each scale of a row.
  std::vector<kernels::CodedMatrix> coded;
};

struct MasterOptions {
  // By parameter, what of it its master is, which is none where the part is empty; the optimizer then keeps no codes.
  // Without: all.
  std::vector<comm::Part> parts = {};
  bool on_host = false;  // in pinned memory, if the arena is of a device other than the CPU
};

// Books values, codes and scales under "weights", masters under "master".
TrainedWeights AllocateTrainedWeights(const model::ModelConfig& config, kernels::DType dtype,
                                      const spec::OptimizerOptions& options, kernels::Arena& arena,
                                      MasterOptions masters = {});

// What of parameter `name` a checkpoint holds: "weight/<name>" (the master, if there is one), or if it is coded
// "weight.codes/<name>" and "weight.scales/<name>". Of a master in parts, this rank's, if there is any.
void AppendWeightState(const TrainedWeights& weights, size_t parameter, const std::string& name,
                       std::vector<optim::NamedTensor>* state);

// By LinearSite::index, for linear::MakeCodedWeightsScheme; empty if nothing is coded.
std::vector<kernels::CodedMatrix> CodedBySite(const model::ModelConfig& config, const TrainedWeights& weights);

}  // namespace trainyard::train
