#include "worker/comm/gradient_exchange.h"

#include <algorithm>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "base/status_macros.h"
#include "kernels/codec/hash64.h"
#include "kernels/codec/piece_math.h"
#include "worker/comm/adaptation.h"
#include "worker/comm/exchange_memory.h"
#include "worker/comm/exchange_parts.h"
#include "worker/comm/exchange_plan.h"
#include "worker/comm/piece_coder.h"
#include "worker/comm/rank_agreement.h"

namespace trainyard::comm {
namespace {

using kernels::TensorView;

double SecondsSince(absl::Duration start) {
  return absl::ToDoubleSeconds(RealClock()->Monotonic() - start);
}

// The state that an exchange works on: one that its user has, or its own.
struct StateHolder {
  ExchangeParts* parts = nullptr;
  std::unique_ptr<ExchangeParts> own;
};

// One rank: the sum is the gradient itself.
class SoloExchange final : public GradientExchange {
 public:
  SoloExchange(const ExchangeOptions& options, std::vector<GradientLayer> layers, std::vector<Bucket> buckets,
               StateHolder state)
      : layers_(std::move(layers)),
        buckets_(std::move(buckets)),
        state_(std::move(state)),
        device_stream_(options.device() == kernels::Device::kCuda ? options.compute : nullptr) {
    if (!options.keeps_contribution) return;
    for (const GradientLayer& layer : layers_) {
      for (const GradientTensor& tensor : layer.tensors) contributions_.push_back(tensor.gradient);
    }
  }

  void Begin(int64_t step, float scale, bool accumulate) override { scale_ = scale; }
  void WaitForLayer(int layer) override {}

  void LayerReady(int layer) override {
    if (scale_ == 1.0f) return;
    kernels::Stream& stream = device_stream_ != nullptr ? *device_stream_ : host_stream_;
    for (const GradientTensor& tensor : layers_[static_cast<size_t>(layer)].tensors) {
      SumPieces({.pieces = TensorView(tensor.gradient.data(), tensor.gradient.dtype(), {0, tensor.gradient.size()}),
                 .own_piece = tensor.gradient,
                 .own = 0,
                 .scale = scale_,
                 .out = tensor.gradient},
                stream);
    }
  }

  absl::Status Wait() override {
    ++stats_.steps;
    return absl::OkStatus();
  }

  const std::vector<TensorView>& contributions() const override { return contributions_; }
  const std::vector<Bucket>& buckets() const override { return buckets_; }
  ExchangeState& state() override { return *state_.parts; }
  int64_t workspace_bytes() const override { return 0; }
  ExchangeStats stats() const override { return stats_; }

 private:
  const std::vector<GradientLayer> layers_;
  const std::vector<Bucket> buckets_;
  const StateHolder state_;
  kernels::Stream* const device_stream_;  // the compute stream, if that is a device's
  kernels::Stream host_stream_{1};
  std::vector<TensorView> contributions_;
  float scale_ = 1.0f;
  ExchangeStats stats_;
};

// What a bucket sent in a phase, cut by what its codecs made: every encoded byte of a phase goes to equally many ranks.
// Where nothing was encoded all of it is `uncoded`.
void BookByCodec(int64_t sent, absl::string_view uncoded, std::map<absl::string_view, int64_t>* encoded,
                 std::map<std::string, int64_t>* by_codec) {
  int64_t made = 0;
  for (const auto& [codec, bytes] : *encoded) made += bytes;
  if (made == 0) {
    if (sent > 0) (*by_codec)[std::string(uncoded)] += sent;
    return;
  }
  for (auto& [codec, bytes] : *encoded) {
    if (bytes == 0) continue;
    // The last gets what rounding has left, so that the shares add up.
    const int64_t share = static_cast<int64_t>(static_cast<__int128>(sent) * bytes / made);
    (*by_codec)[std::string(codec)] += share;
    sent -= share;
    made -= bytes;
    bytes = 0;
  }
}

// f32 memory for what a rank contributes, tensor after tensor.
class Contributions {
 public:
  static absl::StatusOr<Contributions> Make(const ExchangeOptions& options,
                                            const std::vector<ExchangeTensor>& tensors) {
    Contributions made(options.device() == kernels::Device::kCuda ? kernels::MemoryKind::kDevice
                                                                  : kernels::MemoryKind::kHost);
    if (!options.keeps_contribution) return made;
    int64_t elements = 0;
    for (const ExchangeTensor& tensor : tensors) elements += tensor.elements;
    TY_RETURN_IF_ERROR(made.memory_.Grow(elements * static_cast<int64_t>(sizeof(float))));
    float* place = made.memory_.floats();
    for (const ExchangeTensor& tensor : tensors) {
      made.views_.emplace_back(place, kernels::DType::kF32, std::initializer_list<int64_t>{tensor.elements});
      made.pointers_.push_back(place);
      place += tensor.elements;
    }
    return made;
  }
  const std::vector<TensorView>& views() const { return views_; }
  const std::vector<float*>& pointers() const { return pointers_; }
  int64_t bytes() const { return memory_.bytes(); }

 private:
  explicit Contributions(kernels::MemoryKind kind) : memory_(kind) {}

  ExchangeMemory memory_;
  std::vector<TensorView> views_;
  std::vector<float*> pointers_;
};

class ThreadedExchange final : public GradientExchange {
 public:
  ThreadedExchange(const ExchangeOptions& options, const std::vector<GradientLayer>& layers,
                   std::vector<Bucket> buckets, Communicator* communicator, StateHolder state,
                   Contributions contributions)
      : options_(options),
        buckets_(std::move(buckets)),
        communicator_(communicator),
        state_(std::move(state)),
        element_bytes_(ElementBytes(layers)),
        tensors_(TensorsOf(layers, buckets_)),
        contributions_(std::move(contributions)),
        stream_(options.device(), 1),
        coder_(&parts(), contributions_.pointers(), &stream_),
        adaptation_(&parts()),
        buffers_(MemoryKindOf(stream_)) {
    bucket_of_layer_.resize(layers.size());
    for (size_t b = 0; b < buckets_.size(); ++b) {
      for (int layer = buckets_[b].first_layer; layer <= buckets_[b].last_layer; ++layer) {
        bucket_of_layer_[static_cast<size_t>(layer)] = static_cast<int>(b);
      }
      reducers_.push_back(MakeReducer(tensors_[b], &parts(), &coder_));
      if (options_.device() == kernels::Device::kCuda) {
        ready_marks_.push_back(std::make_unique<kernels::Stream>(options_.device(), 1));
      }
    }
    layers_missing_.resize(buckets_.size());
    is_ready_.resize(layers.size());
    {
      MutexLock lock(&mutex_);
      stats_.bits = parts().codecs().BitsByType();
    }
  }

  // Once, before anything else.
  absl::Status Start() {
    TY_RETURN_IF_ERROR(Reserve());
    thread_ = std::thread([this] { Loop(); });
    return absl::OkStatus();
  }

  ~ThreadedExchange() override {
    if (!thread_.joinable()) return;
    {
      MutexLock lock(&mutex_);
      stopping_ = true;
      // A step was given up half way: the peers may never come to where the thread waits for them.
      if (is_exchanging_) communicator_->Abort();
      wake_.NotifyAll();
    }
    thread_.join();
  }

  void Begin(int64_t step, float scale, bool accumulate) override {
    TY_CHECK(!accumulate || (options_.scatter && options_.scatter->accumulates));
    MutexLock lock(&mutex_);
    TY_CHECK(next_bucket_ == buckets_.size() || !error_.ok());
    step_ = step;
    scale_ = scale;
    accumulate_ = accumulate;
    for (size_t b = 0; b < buckets_.size(); ++b) {
      layers_missing_[b] = buckets_[b].last_layer - buckets_[b].first_layer + 1;
    }
    std::fill(is_ready_.begin(), is_ready_.end(), false);
    next_bucket_ = 0;
  }

  void LayerReady(int layer) override {
    TY_CHECK_GE(layer, 0);
    TY_CHECK_LT(static_cast<size_t>(layer), bucket_of_layer_.size());
    MutexLock lock(&mutex_);
    TY_CHECK(!is_ready_[static_cast<size_t>(layer)]);
    is_ready_[static_cast<size_t>(layer)] = true;
    const auto bucket = static_cast<size_t>(bucket_of_layer_[static_cast<size_t>(layer)]);
    if (--layers_missing_[bucket] > 0) return;
    // Everything the bucket needs has been enqueued; the stream goes on without us.
    if (!ready_marks_.empty()) ready_marks_[bucket]->WaitFor(*options_.compute);
    wake_.NotifyAll();
  }

  void WaitForLayer(int layer) override {
    const absl::Duration start = RealClock()->Monotonic();
    MutexLock lock(&mutex_);
    const auto bucket = static_cast<size_t>(bucket_of_layer_[static_cast<size_t>(layer)]);
    for (size_t b = 0; error_.ok() && b <= bucket; ++b) TY_CHECK_EQ(layers_missing_[b], 0);
    while (error_.ok() && next_bucket_ <= bucket) done_.Wait(&mutex_);
    stats_.exposed_seconds += SecondsSince(start);
  }

  absl::Status Wait() override {
    const absl::Duration start = RealClock()->Monotonic();
    MutexLock lock(&mutex_);
    if (error_.ok()) {
      for (int missing : layers_missing_) TY_CHECK_EQ(missing, 0);
    }
    while (error_.ok() && next_bucket_ < buckets_.size()) done_.Wait(&mutex_);  // bounded by the communicator's timeout
    ++stats_.steps;
    stats_.exposed_seconds += SecondsSince(start);
    return error_;
  }

  const std::vector<TensorView>& contributions() const override { return contributions_.views(); }
  const std::vector<Bucket>& buckets() const override { return buckets_; }
  ExchangeState& state() override { return *state_.parts; }
  int64_t workspace_bytes() const override { return buffers_.bytes() + contributions_.bytes() + transport_bytes_; }

  ExchangeStats stats() const override {
    MutexLock lock(&mutex_);
    ExchangeStats stats = stats_;
    stats.plan_epoch = state_.parts->codecs().epoch();  // may have been restored
    return stats;
  }

 private:
  ExchangeParts& parts() { return *state_.parts; }

  // For the codecs as they are now.
  absl::Status Reserve() {
    BufferNeeds needs;
    for (const auto& reducer : reducers_) needs.Cover(reducer->Needs());
    TY_RETURN_IF_ERROR(buffers_.Reserve(needs));
    transport_bytes_ = communicator_->ReserveSum(needs.transport);
    return absl::OkStatus();
  }

  void Loop() {
    while (true) {
      size_t bucket = 0;
      int64_t step = 0;
      float scale = 1.0f;
      bool accumulate = false;
      {
        MutexLock lock(&mutex_);
        while (!stopping_ && !HasWork()) wake_.Wait(&mutex_);
        if (stopping_) return;
        bucket = next_bucket_;
        step = step_;
        scale = scale_;
        accumulate = accumulate_;
        is_exchanging_ = true;
      }
      const absl::Duration start = RealClock()->Monotonic();
      const Traffic before = communicator_->traffic();
      const double codec_before = coder_.codec_seconds();
      WireBytes sent;
      absl::Status status = Exchange(bucket, step, scale, accumulate, &sent);
      if (status.ok() && bucket + 1 == buckets_.size()) status = EndStep(step);
      const Traffic after = communicator_->traffic();

      MutexLock lock(&mutex_);
      is_exchanging_ = false;
      const int64_t bytes_sent = after.bytes_sent - before.bytes_sent;
      stats_.exchange_seconds += SecondsSince(start);
      stats_.codec_seconds += coder_.codec_seconds() - codec_before;
      stats_.bytes_sent += bytes_sent;
      stats_.phase1_bytes += sent.phase1;
      stats_.phase2_bytes += sent.phase2;
      const absl::string_view uncoded = parts().power_sgd() != nullptr ? "power_sgd" : "none";
      BookByCodec(sent.phase1, uncoded, &coder_.encoded_bytes(1), &stats_.phase1_by_codec);
      BookByCodec(sent.phase2, uncoded, &coder_.encoded_bytes(2), &stats_.phase2_by_codec);
      stats_.control_bytes += bytes_sent - sent.phase1 - sent.phase2;
      stats_.bytes_received += after.bytes_received - before.bytes_received;
      stats_.gradient_bytes += buckets_[bucket].elements * element_bytes_ / (options_.scatter ? 2 : 1);
      if (!status.ok()) {
        error_ = Annotate(status, absl::StrCat("gradient exchange, step ", step, ", layers ",
                                               buckets_[bucket].first_layer, "..", buckets_[bucket].last_layer));
      }
      ++next_bucket_;
      done_.NotifyAll();
    }
  }

  bool HasWork() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return error_.ok() && next_bucket_ < buckets_.size() && layers_missing_[next_bucket_] == 0;
  }

  absl::Status Exchange(size_t bucket, int64_t step, float scale, bool accumulate, WireBytes* sent) {
    if (bucket == 0) {
      // A state restored after Create may hold other codecs.
      if (seen_epoch_ != parts().codecs().epoch()) TY_RETURN_IF_ERROR(CodecsHaveChanged());
      coder_.BeginStep(step, scale, step % kErrorInterval == 0);
      adaptation_.BeginStep(step);
    }
    if (buckets_[bucket].elements == 0) return absl::OkStatus();
    if (!ready_marks_.empty()) stream_.WaitFor(*ready_marks_[bucket]);
    TY_RETURN_IF_ERROR(adaptation_.Look(tensors_[bucket], coder_));
    TY_RETURN_IF_ERROR(reducers_[bucket]->Reduce({.step = step,
                                                  .scale = scale,
                                                  .accumulate = accumulate,
                                                  .communicator = communicator_,
                                                  .buffers = &buffers_,
                                                  .stream = &stream_,
                                                  .sent = sent}));
    // The memory of the bucket's gradients may be in use again as soon as the bucket counts as done.
    return options_.scatter && options_.scatter->by_layer ? stream_.Synchronize() : absl::OkStatus();
  }

  absl::Status EndStep(int64_t step) {
    TY_RETURN_IF_ERROR(stream_.Synchronize());
    if (step % kErrorInterval == 0) TakeSquaredErrors();
    TY_ASSIGN_OR_RETURN(const bool has_changed, adaptation_.EndStep(*communicator_, stream_));
    if (has_changed) TY_RETURN_IF_ERROR(CodecsHaveChanged());
    const int64_t interval = options_.communication.hash_check_interval_steps;
    if (interval == 0 || (step + 1) % interval != 0) return absl::OkStatus();
    if (options_.scatter) return absl::OkStatus();  // each rank has something else
    uint64_t hash = 0;
    for (const std::vector<BucketTensor>& tensors : tensors_) {
      for (const BucketTensor& tensor : tensors) {
        hash = kernels::Hash64(tensor.gradient.data(), static_cast<size_t>(tensor.gradient.bytes()), hash);
      }
    }
    return AgreeOnHash(*communicator_, step, hash);
  }

  // Nothing is at work on the buffers.
  absl::Status CodecsHaveChanged() {
    seen_epoch_ = parts().codecs().epoch();
    TY_RETURN_IF_ERROR(Reserve());
    MutexLock lock(&mutex_);
    stats_.bits = parts().codecs().BitsByType();
    return absl::OkStatus();
  }

  void TakeSquaredErrors() {
    const std::vector<double> errors = coder_.SquaredErrors();
    MutexLock lock(&mutex_);
    for (size_t type = 0; type < errors.size(); ++type) {
      if (errors[type] >= 0) stats_.squared_error[parts().codecs().types()[type].name] = errors[type];
    }
  }

  const ExchangeOptions options_;
  const std::vector<Bucket> buckets_;
  Communicator* const communicator_;
  const StateHolder state_;
  const int64_t element_bytes_;
  const std::vector<std::vector<BucketTensor>> tensors_;  // by bucket
  std::vector<int> bucket_of_layer_;
  Contributions contributions_;
  kernels::Stream stream_;  // of the thread
  // On a device, by bucket: a stream of no work that waits for what the bucket's layers need of the compute stream.
  std::vector<std::unique_ptr<kernels::Stream>> ready_marks_;
  PieceCoder coder_;
  Adaptation adaptation_;
  std::vector<std::unique_ptr<BucketReducer>> reducers_;  // by bucket
  ExchangeBuffers buffers_;
  int64_t transport_bytes_ = 0;
  int64_t seen_epoch_ = 0;

  mutable Mutex mutex_;
  CondVar wake_, done_;
  int64_t step_ ABSL_GUARDED_BY(mutex_) = 0;
  float scale_ ABSL_GUARDED_BY(mutex_) = 1.0f;
  bool accumulate_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<int> layers_missing_ ABSL_GUARDED_BY(mutex_);  // by bucket
  std::vector<bool> is_ready_ ABSL_GUARDED_BY(mutex_);       // by layer
  size_t next_bucket_ ABSL_GUARDED_BY(mutex_) = buckets_.size();
  bool is_exchanging_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status error_ ABSL_GUARDED_BY(mutex_);
  ExchangeStats stats_ ABSL_GUARDED_BY(mutex_);

  std::thread thread_;  // last: it uses all of the above
};

uint64_t SettingsDigest(const ExchangeOptions& options, const std::vector<ExchangeTensor>& tensors) {
  const std::string text = options.communication.Fingerprint();
  uint64_t digest = kernels::Hash64(text.data(), text.size(), options.seed);
  if (options.scatter) digest ^= options.scatter->by_layer ? 2 : 1;
  for (const ExchangeTensor& tensor : tensors) {
    digest = kernels::Hash64(tensor.name.data(), tensor.name.size(), digest);
    digest = kernels::Hash64(&tensor.rows, sizeof(tensor.rows), digest);
  }
  return digest;
}

}  // namespace

absl::StatusOr<std::unique_ptr<GradientExchange>> GradientExchange::Create(const ExchangeOptions& options,
                                                                           std::vector<GradientLayer> layers,
                                                                           Communicator* communicator,
                                                                           ExchangeState* state) {
  StateHolder holder;
  if (state != nullptr) {
    holder.parts = static_cast<ExchangeParts*>(state);  // the only implementation
    TY_CHECK_EQ(holder.parts->rank(), communicator->rank());
    TY_CHECK_EQ(holder.parts->ranks(), communicator->size());
    TY_CHECK(holder.parts->options().device() == options.device());
  } else {
    TY_ASSIGN_OR_RETURN(holder.own, ExchangeParts::Make(options, layers, communicator->rank(), communicator->size(),
                                                        /*has_memory=*/true));
    holder.parts = holder.own.get();
  }
  const int64_t element_bytes = ElementBytes(layers);
  const std::vector<GradientLayerSpec> specs = SpecsOf(layers);
  std::vector<Bucket> buckets = LayOutBuckets(options, layers);
  if (communicator->size() == 1) {
    return std::unique_ptr<GradientExchange>(
        std::make_unique<SoloExchange>(options, std::move(layers), std::move(buckets), std::move(holder)));
  }
  if (options.keeps_contribution && holder.parts->power_sgd() != nullptr) {
    return absl::InvalidArgumentError(
        "communication.codec: power_sgd sums factors, so a rank's part in the sum is not known; this job needs it");
  }
  TY_RETURN_IF_ERROR(
      AgreeOnExchange(*communicator, {.codec_version = kCodecWireVersion,
                                      .layout = LayoutDigest(specs, buckets) ^ static_cast<uint64_t>(element_bytes),
                                      .settings = SettingsDigest(options, holder.parts->tensors())}));
  TY_ASSIGN_OR_RETURN(Contributions contributions, Contributions::Make(options, holder.parts->tensors()));
  auto exchange = std::make_unique<ThreadedExchange>(options, layers, std::move(buckets), communicator,
                                                     std::move(holder), std::move(contributions));
  TY_RETURN_IF_ERROR(exchange->Start());
  return std::unique_ptr<GradientExchange>(std::move(exchange));
}

}  // namespace trainyard::comm
