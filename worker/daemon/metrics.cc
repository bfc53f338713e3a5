#include "worker/daemon/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <algorithm>
#include <atomic>
#include <iterator>
#include <map>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/clock.h"
#include "base/http/status_server.h"
#include "base/status_macros.h"
#include "base/version.h"

namespace trainyard::daemon {
namespace {

using prometheus::BuildCounter;
using prometheus::BuildGauge;
using prometheus::BuildHistogram;
using prometheus::Counter;
using prometheus::Family;
using prometheus::Gauge;
using prometheus::Histogram;
using Labels = std::map<std::string, std::string>;

const Histogram::BucketBoundaries& StepBuckets() {
  static const Histogram::BucketBoundaries buckets = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25,
                                                      0.5,   1,      2.5,   5,    10,    25,   50,  100};
  return buckets;
}

// Value of a progress report -> series.
constexpr std::pair<const char*, const char*> kGauges[] = {{"loss", "loss"},
                                                           {"evaluation_loss", "evaluation_loss"},
                                                           {"gradient_norm", "grad_norm"},
                                                           {"learning_rate", "learning_rate"},
                                                           {"tokens_per_second", "tokens_per_second"},
                                                           {"mfu", "mfu_ratio"},
                                                           {"compression_ratio", "compression_ratio"},
                                                           {"plan_epoch", "plan_epoch"},
                                                           {"loss_d", "loss_d"},
                                                           {"loss_g", "loss_g"},
                                                           {"gradient_penalty", "gradient_penalty"},
                                                           {"eta", "eta"},
                                                           {"gamma", "gamma"},
                                                           {"images_per_second", "images_per_second"},
                                                           {"sliced_wasserstein", "sliced_wasserstein"},
                                                           {"modes_covered", "modes_covered"},
                                                           {"frechet_distance", "frechet_distance"},
                                                           {"generation_number", "generation_number"},
                                                           {"generation_trials", "generation_trials"},
                                                           {"generation_trials_done", "generation_trials_done"},
                                                           {"generation_trials_failed", "generation_trials_failed"}};

// Values whose names end in a layer type, or a part of the blocks -> series with that as a label.
struct TypeGauge {
  const char *prefix, *series, *label, *help;
};
constexpr TypeGauge kTypeGauges[] = {
    {"quant_nmse_", "quant_nmse", "layer_type", "Of the gradients of one layer type on the wire, newest value"},
    {"bits_", "quant_bits", "layer_type", "Of the gradients of one layer type on the wire, newest value"},
    {"masked_fraction_", "masked_ratio", "part", "Share of elements that the masks of the scheme give no gradient"}};

// A spec has at most 8 built-in layer types and 32 of its own; masks count 4 parts.
constexpr size_t kMostTypeSeries = 2 * 40 + 4;

// Value of a progress report -> label op of comm_seconds.
const std::map<std::string, std::string> kCommSeconds = {
    {"comm_seconds", "exchange"}, {"comm_exposed_seconds", "exchange_exposed"}, {"quant_seconds", "quantize"}};
const Histogram::BucketBoundaries kCommBuckets = {0.0001, 0.001, 0.01, 0.1, 1, 10};
// Beginning of a value's name, before the codec -> label op of comm_bytes_total.
constexpr std::pair<const char*, const char*> kCommBytes[] = {{"comm_phase1_bytes_", "exchange_phase1"},
                                                              {"comm_phase2_bytes_", "exchange_phase2"},
                                                              {"comm_control_bytes", "exchange_control"}};
// There are six codecs, and tensors without.
constexpr size_t kMostBytesSeries = 20;

constexpr const char* kCategories[] = {"productive",         "init",          "data_wait", "checkpoint_save",
                                       "checkpoint_restore", "lost_progress", "recovery",  "health_check",
                                       "trials_wait",        "other"};

// What became of files that ranks asked the cache for (worker/cache).
constexpr const char* kCacheResults[] = {"hit", "miss", "bypass"};

class PrometheusMetrics final : public Metrics {
 public:
  PrometheusMetrics()
      : registry_(std::make_shared<prometheus::Registry>()),
        step_seconds_(BuildHistogram()
                          .Name("trainyard_step_seconds")
                          .Help("Time of one training step of a rank")
                          .Register(*registry_)),
        step_timestamp_(GaugeFamily("step_timestamp_seconds", "When the rank's last step ended, in Unix time")),
        step_(GaugeFamily("step", "Training steps done")),
        tokens_(BuildCounter()
                    .Name("trainyard_tokens_total")
                    .Help("Tokens the job has trained on, all ranks together (rank 0 only)")
                    .Register(*registry_)),
        comm_seconds_(BuildHistogram()
                          .Name("trainyard_comm_seconds")
                          .Help("Time of one step spent on collectives; exchange_exposed is what training waited for")
                          .Register(*registry_)),
        comm_bytes_(BuildCounter()
                        .Name("trainyard_comm_bytes_total")
                        .Help("Bytes sent to other ranks, after the codec; codec none: not coded")
                        .Register(*registry_)),
        checkpoint_seconds_(BuildHistogram()
                                .Name("trainyard_checkpoint_seconds")
                                .Help("Time of one checkpoint by phase; only blocking stops the training")
                                .Register(*registry_)),
        checkpoint_step_(GaugeFamily("checkpoint_committed_step", "Step of the newest committed checkpoint")),
        goodput_(BuildCounter()
                     .Name("trainyard_goodput_seconds_total")
                     .Help("Wall time of a rank by what it was used for; the categories add up to all of it")
                     .Register(*registry_)),
        ranks_ended_(BuildCounter()
                         .Name("trainyard_worker_ranks_ended_total")
                         .Help("Ranks that ended on this worker, by reason")
                         .Register(*registry_)),
        slots_(GaugeFamily("worker_slots", "Slots of this worker by type and state")),
        gpu_healthy_(GaugeFamily("worker_gpu_healthy", "1 if ranks may run on the GPU")),
        gpu_used_(GaugeFamily("worker_gpu_memory_used_bytes", "Memory of the GPU in use, by whomever")),
        gpu_xids_(BuildCounter()
                      .Name("trainyard_worker_gpu_xids_total")
                      .Help("XID errors that the driver has told while this daemon ran, without the ignored ones")
                      .Register(*registry_)) {
    for (const auto& [value, name] : kGauges) {
      gauges_.emplace(value, &GaugeFamily(name, "Newest value of the training metric of this name"));
    }
    for (const TypeGauge& gauge : kTypeGauges)
      type_gauges_.emplace_back(&gauge, &GaugeFamily(gauge.series, gauge.help));
    connected_ = &GaugeFamily("worker_coordinator_connected", "1 while a session with the coordinator is open").Add({});
    sessions_ = &BuildCounter()
                     .Name("trainyard_worker_sessions_total")
                     .Help("Sessions opened with the coordinator")
                     .Register(*registry_)
                     .Add({});
    round_trip_ = &BuildHistogram()
                       .Name("trainyard_worker_heartbeat_round_trip_seconds")
                       .Help("Time from a heartbeat to its acknowledgement")
                       .Register(*registry_)
                       .Add({}, Histogram::BucketBoundaries{0.001, 0.005, 0.02, 0.1, 0.5, 1, 3, 10});
    spool_bytes_ = &GaugeFamily("worker_log_spool_bytes", "Bytes of runner logs on this worker's disk").Add({});
    spool_lost_ = &BuildCounter()
                       .Name("trainyard_worker_log_lost_bytes_total")
                       .Help("Bytes of runner logs given up before the coordinator had them")
                       .Register(*registry_)
                       .Add({});
    auto& cache_files =
        BuildCounter()
            .Name("trainyard_worker_cache_files_total")
            .Help(
                "Files that ranks asked the worker's cache for: copied before (hit), copied now (miss), "
                "or read where they are (bypass)")
            .Register(*registry_);
    auto& cache_bytes =
        BuildCounter().Name("trainyard_worker_cache_bytes_total").Help("The same in bytes").Register(*registry_);
    for (const char* result : kCacheResults) {
      cache_uses_[absl::StrCat("cache_", result, "_files")] = &cache_files.Add({{"result", result}});
      cache_uses_[absl::StrCat("cache_", result, "_bytes")] = &cache_bytes.Add({{"result", result}});
    }
    for (auto& [type, gauges] : {std::pair{"cpu", &cpu_}, std::pair{"gpu", &gpu_}, std::pair{"driver", &driver_}}) {
      gauges->free = &slots_.Add({{"type", type}, {"state", "free"}});
      gauges->busy = &slots_.Add({{"type", type}, {"state", "busy"}});
      gauges->unhealthy = &slots_.Add({{"type", type}, {"state", "unhealthy"}});
    }
    GaugeFamily("worker_build_info", "1; the labels tell what runs").Add({{"version", kVersion}}).Set(1);
  }

  absl::Status Serve(const std::string& listen) {
    TY_ASSIGN_OR_RETURN(server_, StatusServer::Start({.listen = listen,
                                                      .metrics = registry_,
                                                      .is_live = [this] { return IsLive(); },
                                                      .is_ready = [this] { return IsReady(); }}));
    return absl::OkStatus();
  }

  int port() const override { return server_ == nullptr ? 0 : server_->port(); }

  void Tick() override { last_tick_ = absl::ToInt64Milliseconds(RealClock()->Monotonic()); }

  void TaskBegan(const std::string& job_uid, const std::vector<int>& ranks) override {
    for (const int rank : ranks) {
      const Labels labels = {{"job", job_uid}, {"rank", absl::StrCat(rank)}};
      Rank& series = ranks_[{job_uid, rank}];
      series.step_seconds = &step_seconds_.Add(labels, StepBuckets());
      series.step = &step_.Add(labels);
      series.tokens = rank == 0 ? &tokens_.Add(labels) : nullptr;
      for (const auto& [value, op] : kCommSeconds) {
        series.comm_seconds[value] = &comm_seconds_.Add(With(labels, "op", op), kCommBuckets);
      }
      for (const char* category : kCategories) {
        series.goodput[category] = &goodput_.Add(With(labels, "category", category));
      }
      if (rank == 0) {
        for (const char* phase : {"blocking", "write", "commit"}) {
          series.checkpoint[phase] = &checkpoint_seconds_.Add(With(labels, "phase", phase), StepBuckets());
        }
      }
    }
  }

  void Progress(const std::string& job_uid, int rank, const v1::RankProgress& progress, absl::Time wall) override {
    const auto it = ranks_.find({job_uid, rank});
    if (it == ranks_.end()) return;
    Rank& series = it->second;
    const Labels labels = {{"job", job_uid}, {"rank", absl::StrCat(rank)}};
    series.step->Set(static_cast<double>(progress.step()));
    for (const auto& [name, value] : progress.moment()) {
      const auto gauge = gauges_.find(name);
      if (gauge != gauges_.end()) Made(series.gauges[name], *gauge->second, labels).Set(value);
    }
    for (const auto& [name, value] : progress.values()) {
      if (const auto gauge = gauges_.find(name); gauge != gauges_.end()) {
        Made(series.gauges[name], *gauge->second, labels).Set(value);
      } else if (name == "step_seconds") {
        series.step_seconds->Observe(value);
        Made(series.step_timestamp, step_timestamp_, labels).Set(absl::ToDoubleSeconds(wall - absl::UnixEpoch()));
      } else if (name == "tokens") {
        Add(series.tokens, value);
      } else if (const auto time = kCommSeconds.find(name); time != kCommSeconds.end()) {
        series.comm_seconds.at(name)->Observe(value);
      } else if (AddBytes(name, value, labels, &series)) {
        continue;
      } else if (name == "checkpoint_step") {
        Made(series.checkpoint_step, checkpoint_step_, labels).Set(value);
      } else if (const auto use = cache_uses_.find(name); use != cache_uses_.end()) {
        Add(use->second, value);
      } else if (SetOfType(name, value, labels, &series)) {
        continue;
      } else {
        for (auto& [phase, histogram] : series.checkpoint) {
          if (name == absl::StrCat("checkpoint_", phase, "_seconds")) histogram->Observe(value);
        }
      }
    }
  }

  void TaskEnded(const std::string& job_uid) override {
    for (auto it = ranks_.lower_bound({job_uid, 0}); it != ranks_.end() && it->first.first == job_uid;) {
      Rank& series = it->second;
      step_seconds_.Remove(series.step_seconds);
      Remove(step_, series.step);
      Remove(step_timestamp_, series.step_timestamp);
      Remove(tokens_, series.tokens);
      for (const auto& [name, counter] : series.comm_bytes) Remove(comm_bytes_, counter);
      for (const auto& [name, histogram] : series.comm_seconds) Remove(comm_seconds_, histogram);
      for (const auto& [name, gauge] : series.type_gauges) Remove(*gauge.first, gauge.second);
      Remove(checkpoint_step_, series.checkpoint_step);
      for (const auto& [name, gauge] : series.gauges) Remove(*gauges_.at(name), gauge);
      for (const auto& [name, counter] : series.goodput) Remove(goodput_, counter);
      for (const auto& [name, histogram] : series.checkpoint) Remove(checkpoint_seconds_, histogram);
      it = ranks_.erase(it);
    }
  }

  void Goodput(const std::string& job_uid, int rank, const std::map<std::string, double>& seconds) override {
    const auto it = ranks_.find({job_uid, rank});
    if (it == ranks_.end()) return;
    std::map<std::string, Counter*>& series = it->second.goodput;
    for (const auto& [category, value] : seconds) {
      const auto counter = series.find(category);
      Add(counter != series.end() ? counter->second : series.at("other"), value);
    }
  }

  void SetConnected(bool connected) override {
    is_connected_ = connected;
    connected_->Set(connected ? 1 : 0);
  }
  void SessionOpened() override { sessions_->Increment(); }
  void HeartbeatRoundTrip(absl::Duration time) override { round_trip_->Observe(absl::ToDoubleSeconds(time)); }
  void SetSlots(const SlotCounts& cpu, const SlotCounts& gpu, const SlotCounts& driver) override {
    cpu_.Set(cpu);
    gpu_.Set(gpu);
    driver_.Set(driver);
  }
  void SetGpu(int index, const std::string& uuid, bool is_healthy, int64_t used_bytes) override {
    const auto [found, is_new] = gpus_.try_emplace({index, uuid});
    if (is_new) {
      const Labels labels = {{"gpu", absl::StrCat(index)}, {"uuid", uuid}};
      found->second = {&gpu_healthy_.Add(labels), &gpu_used_.Add(labels)};
    }
    found->second.healthy->Set(is_healthy ? 1 : 0);
    found->second.used->Set(static_cast<double>(used_bytes));
  }
  void GpuXid(int index, const std::string& uuid, const std::string& xid_class) override {
    gpu_xids_.Add({{"gpu", absl::StrCat(index)}, {"uuid", uuid}, {"class", xid_class}}).Increment();
  }
  void SetLogSpool(int64_t bytes_on_disk, int64_t lost_bytes) override {
    spool_bytes_->Set(static_cast<double>(bytes_on_disk));
    Add(spool_lost_, static_cast<double>(lost_bytes) - spool_lost_->Value());
  }
  void RankEnded(const std::string& reason) override {
    if (reasons_.size() < kMostReasons) reasons_.insert(reason);
    ranks_ended_.Add({{"reason", reasons_.contains(reason) ? reason : "other"}}).Increment();
  }

 private:
  absl::Status IsLive() const {
    constexpr int64_t kLimitMs = 30'000;  // a tick is a fraction of a second
    const int64_t silent = absl::ToInt64Milliseconds(RealClock()->Monotonic()) - last_tick_;
    if (silent <= kLimitMs) return absl::OkStatus();
    return absl::DeadlineExceededError(absl::StrCat("the daemon's loop has not come round for ", silent / 1000, " s"));
  }
  absl::Status IsReady() const {
    return is_connected_ ? absl::OkStatus() : absl::UnavailableError("no session with the coordinator is open");
  }

  // Pointers into the families. Those that are null are made with the first value, so that no series tells a zero that
  // nobody measured.
  struct Rank {
    Histogram* step_seconds = nullptr;
    Gauge* step = nullptr;
    Gauge* step_timestamp = nullptr;
    Gauge* checkpoint_step = nullptr;
    Counter* tokens = nullptr;
    std::map<std::string, Histogram*> comm_seconds;  // by the value's name
    std::map<std::string, Counter*> comm_bytes;      // likewise
    std::map<std::string, Gauge*> gauges;
    std::map<std::string, std::pair<Family<Gauge>*, Gauge*>> type_gauges;  // by the value's name
    std::map<std::string, Counter*> goodput;
    std::map<std::string, Histogram*> checkpoint;
  };

  // False if the value is not of bytes on the wire.
  bool AddBytes(const std::string& name, double value, const Labels& labels, Rank* series) {
    const bool is_known = series->comm_bytes.contains(name);
    if (!is_known) {
      const auto kind = std::find_if(std::begin(kCommBytes), std::end(kCommBytes),
                                     [&](const auto& entry) { return absl::StartsWith(name, entry.first); });
      if (kind == std::end(kCommBytes)) return false;
      const std::string codec = name.substr(std::string(kind->first).size());
      if (series->comm_bytes.size() >= kMostBytesSeries) return true;
      series->comm_bytes[name] =
          &comm_bytes_.Add(With(With(labels, "op", kind->second), "codec", codec.empty() ? "none" : codec));
    }
    Add(series->comm_bytes.at(name), value);
    return true;
  }

  // False if the value is not one of a layer type.
  bool SetOfType(const std::string& name, double value, const Labels& labels, Rank* series) {
    for (const auto& [kind, family] : type_gauges_) {
      const std::string prefix = kind->prefix;
      if (!absl::StartsWith(name, prefix)) continue;
      auto known = series->type_gauges.find(name);
      if (known == series->type_gauges.end()) {
        if (series->type_gauges.size() >= kMostTypeSeries) return true;
        Gauge& gauge = family->Add(With(labels, kind->label, name.substr(prefix.size())));
        known = series->type_gauges.emplace(name, std::make_pair(family, &gauge)).first;
      }
      known->second.second->Set(value);
      return true;
    }
    return false;
  }

  Family<Gauge>& GaugeFamily(const std::string& name, const std::string& help) {
    return BuildGauge().Name("trainyard_" + name).Help(help).Register(*registry_);
  }
  static Labels With(Labels labels, const std::string& name, const std::string& value) {
    labels[name] = value;
    return labels;
  }
  static Gauge& Made(Gauge*& gauge, Family<Gauge>& family, const Labels& labels) {
    if (gauge == nullptr) gauge = &family.Add(labels);
    return *gauge;
  }
  // A counter ignores what is not a positive number.
  static void Add(Counter* counter, double value) {
    if (counter != nullptr && value > 0) counter->Increment(value);
  }
  template <typename T>
  static void Remove(Family<T>& family, T* metric) {
    if (metric != nullptr) family.Remove(metric);
  }

  std::shared_ptr<prometheus::Registry> registry_;
  Family<Histogram>& step_seconds_;
  Family<Gauge>& step_timestamp_;
  Family<Gauge>& step_;
  Family<Counter>& tokens_;
  Family<Histogram>& comm_seconds_;
  Family<Counter>& comm_bytes_;
  Family<Histogram>& checkpoint_seconds_;
  Family<Gauge>& checkpoint_step_;
  Family<Counter>& goodput_;
  Family<Counter>& ranks_ended_;
  std::set<std::string> reasons_;  // that have series
  Family<Gauge>& slots_;
  Family<Gauge>& gpu_healthy_;
  Family<Gauge>& gpu_used_;
  Family<Counter>& gpu_xids_;
  std::map<std::string, Family<Gauge>*> gauges_;
  std::vector<std::pair<const TypeGauge*, Family<Gauge>*>> type_gauges_;
  struct SlotGauges {
    void Set(const SlotCounts& counts) {
      free->Set(counts.free);
      busy->Set(counts.busy);
      unhealthy->Set(counts.unhealthy);
    }
    Gauge *free = nullptr, *busy = nullptr, *unhealthy = nullptr;
  };
  SlotGauges cpu_, gpu_, driver_;
  struct GpuGauges {
    Gauge *healthy = nullptr, *used = nullptr;
  };
  std::map<std::pair<int, std::string>, GpuGauges> gpus_;
  Gauge *connected_, *spool_bytes_;
  Counter *sessions_, *spool_lost_;
  std::map<std::string, Counter*> cache_uses_;  // by the value of a progress report
  Histogram* round_trip_;
  std::map<std::pair<std::string, int>, Rank> ranks_;
  std::atomic<bool> is_connected_ = false;
  std::atomic<int64_t> last_tick_ = absl::ToInt64Milliseconds(RealClock()->Monotonic());
  std::unique_ptr<StatusServer> server_;  // last: it reads the rest
};

}  // namespace

absl::StatusOr<std::unique_ptr<Metrics>> Metrics::Create(const std::string& listen) {
  auto metrics = std::make_unique<PrometheusMetrics>();
  if (!listen.empty()) {
    if (absl::Status status = metrics->Serve(listen); !status.ok()) return status;
  }
  return std::unique_ptr<Metrics>(std::move(metrics));
}

}  // namespace trainyard::daemon
