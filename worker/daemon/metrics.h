// What a daemon shows to Prometheus (CP-68, CP-70): about itself, and about each rank that runs here, with labels `job`
// (uid) and `rank`, gone when the task ends. Names: trainyard_<what> for ranks, trainyard_worker_<what> for the daemon.
//
// A rank's numbers come from the values of its progress reports. Names that mean something here:
//   loss, evaluation_loss, learning_rate, tokens_per_second, compression_ratio      gauges of the same name
//   gradient_norm, mfu              gauges grad_norm, mfu_ratio
//   tokens                          tokens of this step over all ranks; summed up in tokens_total of rank 0
//   step_seconds                    histogram
//   comm_seconds, comm_exposed_seconds, quant_seconds    of this step and rank: comm_seconds, a histogram, with
//                                   op="exchange", "exchange_exposed", "quantize" (the last two are parts of the first)
//   comm_{phase1,phase2}_bytes_<codec>, comm_control_bytes    of this step and rank: comm_bytes_total with
//                                   op="exchange_phase1", "exchange_phase2", "exchange_control", and codec
//   quant_nmse_<type>, bits_<type>  gauges quant_nmse, quant_bits with layer_type: types of the job's spec, 40 at most
//   masked_fraction_<part>          gauge masked_ratio with part: {attention,mlp}_{inputs,weights}
//   plan_epoch                      gauge of the same name
//   loss_d, loss_g, gradient_penalty, eta, gamma, images_per_second, sliced_wasserstein, modes_covered,
//   frechet_distance                gauges of the same name, of qoda_gan
//   checkpoint_{blocking,write,commit}_seconds        checkpoint_seconds{phase}
//   checkpoint_step                 checkpoint_committed_step
//   cache_{hit,miss,bypass}_{files,bytes}    of this unit: the worker's worker_cache_{files,bytes}_total with result
//   generation_number, generation_trials, generation_trials_done, generation_trials_failed
//                                   gauges of the same name, of jobs that wait for trials: their newest generation
// Other names only go to the job's history.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "proto/v1/link.pb.h"

namespace trainyard::daemon {

class Metrics {
 public:
  // Serves GET /metrics, /livez and /readyz. `listen` is "host:port", port 0 for any; empty: nothing is served.
  // Unavailable if it cannot be bound. Scrapes are answered on threads of its own; all calls below come from one
  // thread.
  static absl::StatusOr<std::unique_ptr<Metrics>> Create(const std::string& listen);
  virtual ~Metrics() = default;
  virtual int port() const = 0;

  virtual void TaskBegan(const std::string& job_uid, const std::vector<int>& ranks) = 0;
  virtual void Progress(const std::string& job_uid, int rank, const v1::RankProgress& progress, absl::Time wall) = 0;
  // goodput_seconds_total (goodput.h). A category that has no series counts as other.
  virtual void Goodput(const std::string& job_uid, int rank, const std::map<std::string, double>& seconds) = 0;
  virtual void TaskEnded(const std::string& job_uid) = 0;

  // The daemon's loop has come round: /livez asks when that was last.
  virtual void Tick() = 0;
  // /readyz: a session with the coordinator is open.
  virtual void SetConnected(bool connected) = 0;
  virtual void SessionOpened() = 0;
  virtual void HeartbeatRoundTrip(absl::Duration time) = 0;
  struct SlotCounts {
    int free = 0, busy = 0, unhealthy = 0;
  };
  virtual void SetSlots(const SlotCounts& cpu, const SlotCounts& gpu, const SlotCounts& driver) = 0;
  // Of one GPU that the worker offers: worker_gpu_healthy and worker_gpu_memory_used_bytes, with labels `gpu` (index)
  // and `uuid`. All other facts of GPUs are dcgm-exporter's.
  virtual void SetGpu(int index, const std::string& uuid, bool is_healthy, int64_t used_bytes) = 0;
  // worker_gpu_xids_total, with label `class`: noted or fatal.
  virtual void GpuXid(int index, const std::string& uuid, const std::string& xid_class) = 0;
  virtual void SetLogSpool(int64_t bytes_on_disk, int64_t lost_bytes) = 0;
  // `reason` of the exit record. An enumeration in all that we write; beyond kMostReasons they share "other".
  static constexpr size_t kMostReasons = 40;
  virtual void RankEnded(const std::string& reason) = 0;
};

}  // namespace trainyard::daemon
