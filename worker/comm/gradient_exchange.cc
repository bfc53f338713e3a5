#include "worker/comm/gradient_exchange.h"

#include <algorithm>
#include <cstring>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "base/status_macros.h"
#include "worker/comm/coded_reducer.h"
#include "worker/comm/reduce.h"

namespace trainyard::comm {
namespace {

using kernels::TensorView;

double SecondsSince(absl::Duration start) {
  return absl::ToDoubleSeconds(RealClock()->Monotonic() - start);
}

std::vector<GradientLayerSpec> SpecOf(const std::vector<GradientLayer>& layers) {
  std::vector<GradientLayerSpec> specs;
  for (const GradientLayer& layer : layers) {
    GradientLayerSpec& spec = specs.emplace_back();
    for (const GradientTensor& tensor : layer.tensors) spec.tensors.push_back({tensor.gradient.size(), tensor.dims});
  }
  return specs;
}

kernels::DType CommonDType(const std::vector<GradientLayer>& layers) {
  const TensorView* first = nullptr;
  for (const GradientLayer& layer : layers) {
    for (const GradientTensor& tensor : layer.tensors) {
      if (first == nullptr) first = &tensor.gradient;
      TY_CHECK(tensor.gradient.dtype() == first->dtype());
    }
  }
  const kernels::DType dtype = first == nullptr ? kernels::DType::kF32 : first->dtype();
  TY_CHECK(dtype == kernels::DType::kF32 || dtype == kernels::DType::kBF16);
  return dtype;
}

// One rank: the sum is the gradient itself.
class SoloExchange final : public GradientExchange {
 public:
  SoloExchange(std::vector<GradientLayer> layers, std::vector<Bucket> buckets)
      : layers_(std::move(layers)), buckets_(std::move(buckets)) {}

  void Begin(int64_t step, float scale) override { scale_ = scale; }

  void LayerReady(int layer) override {
    if (scale_ == 1.0f) return;
    for (const GradientTensor& tensor : layers_[static_cast<size_t>(layer)].tensors) {
      void* data = tensor.gradient.data();
      SumInRankOrder(&data, 1, tensor.gradient.size(), tensor.gradient.dtype(), scale_, data);
    }
  }

  absl::Status Wait() override {
    ++stats_.steps;
    return absl::OkStatus();
  }

  const std::vector<Bucket>& buckets() const override { return buckets_; }
  int64_t workspace_bytes() const override { return 0; }
  ExchangeStats stats() const override { return stats_; }
  const std::vector<TensorView>& contributions() const override { return contributions_; }
  ExchangeState& state() override { return *state_; }

 private:
  std::vector<TensorView> contributions_;
  ExchangeState* state_ = nullptr;
  const std::vector<GradientLayer> layers_;
  const std::vector<Bucket> buckets_;
  float scale_ = 1.0f;
  ExchangeStats stats_;
};

// A bucket's memory, in forward order.
struct BucketMemory {
  std::vector<TensorView> tensors;
  TensorView run;     // all of it, if the tensors lie back to back
  TensorView staged;  // else a part of the staging buffer
};

class ThreadedExchange final : public GradientExchange {
 public:
  ThreadedExchange(const ExchangeOptions& options, std::vector<GradientLayer> layers, std::vector<Bucket> buckets,
                   Communicator* communicator, std::unique_ptr<Codec> codec)
      : buckets_(std::move(buckets)), communicator_(communicator), codec_(std::move(codec)) {
    const kernels::DType dtype = CommonDType(layers);
    element_bytes_ = static_cast<int64_t>(kernels::SizeOf(dtype));
    bucket_of_layer_.resize(layers.size());
    int64_t staging_bytes = 0, largest_bytes = 0;
    for (size_t b = 0; b < buckets_.size(); ++b) {
      const Bucket& bucket = buckets_[b];
      BucketMemory& memory = memory_.emplace_back();
      for (int layer = bucket.first_layer; layer <= bucket.last_layer; ++layer) {
        bucket_of_layer_[static_cast<size_t>(layer)] = static_cast<int>(b);
        for (const GradientTensor& tensor : layers[static_cast<size_t>(layer)].tensors) {
          if (tensor.gradient.size() > 0) memory.tensors.push_back(tensor.gradient);
        }
      }
      const int64_t bytes = bucket.elements * element_bytes_;
      largest_bytes = std::max(largest_bytes, bytes);
      if (IsOneRun(memory.tensors)) {
        memory.run =
            TensorView(memory.tensors.empty() ? nullptr : memory.tensors.front().data(), dtype, {bucket.elements});
      } else {
        staging_bytes = std::max(staging_bytes, bytes);
      }
    }
    if (codec_->is_identity()) {
      staging_.resize(static_cast<size_t>(staging_bytes));
      for (size_t b = 0; b < buckets_.size(); ++b) {
        if (!memory_[b].run) memory_[b].staged = TensorView(staging_.data(), dtype, {buckets_[b].elements});
      }
      transport_bytes_ = communicator_->ReserveSum(largest_bytes);
    } else {
      PlanCodedBuckets(options, layers);
    }
    layers_missing_.resize(buckets_.size());
    is_ready_.resize(layers.size());
    thread_ = std::thread([this] { Loop(); });
  }

  ~ThreadedExchange() override {
    {
      MutexLock lock(&mutex_);
      stopping_ = true;
      // A step was given up half way: the peers may never come to where the thread waits for them.
      if (is_exchanging_) communicator_->Abort();
      wake_.NotifyAll();
    }
    thread_.join();
  }

  void Begin(int64_t step, float scale) override {
    MutexLock lock(&mutex_);
    TY_CHECK(next_bucket_ == buckets_.size() || !error_.ok());
    step_ = step;
    scale_ = scale;
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
    if (--layers_missing_[static_cast<size_t>(bucket_of_layer_[static_cast<size_t>(layer)])] == 0) wake_.NotifyAll();
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

  const std::vector<Bucket>& buckets() const override { return buckets_; }

  const std::vector<TensorView>& contributions() const override { return contributions_; }
  ExchangeState& state() override { return *state_; }

  int64_t workspace_bytes() const override {
    return static_cast<int64_t>(staging_.size()) + coded_buffers_.bytes() + transport_bytes_;
  }

  ExchangeStats stats() const override {
    MutexLock lock(&mutex_);
    return stats_;
  }

 private:
  static bool IsOneRun(const std::vector<TensorView>& tensors) {
    for (size_t i = 1; i < tensors.size(); ++i) {
      if (static_cast<const char*>(tensors[i - 1].data()) + tensors[i - 1].bytes() != tensors[i].data()) return false;
    }
    return true;
  }

  void PlanCodedBuckets(const ExchangeOptions& options, const std::vector<GradientLayer>& layers) {
    std::vector<int> first_tensor;  // index over all layers, forward
    int count = 0;
    for (const GradientLayer& layer : layers) {
      first_tensor.push_back(count);
      count += static_cast<int>(layer.tensors.size());
    }
    for (const Bucket& bucket : buckets_) {
      std::vector<CodedTensor> tensors;
      for (int layer = bucket.first_layer; layer <= bucket.last_layer; ++layer) {
        int index = first_tensor[static_cast<size_t>(layer)];
        for (const GradientTensor& tensor : layers[static_cast<size_t>(layer)].tensors) {
          tensors.push_back(
              {tensor.gradient, index++, tensor.gradient.size() >= options.communication.min_elements && tensor.dims > 1});
        }
      }
      reducers_.emplace_back(std::move(tensors), communicator_->size(), communicator_->rank());
      reducers_.back().Reserve(*codec_, &coded_buffers_);
    }
  }

  void Loop() {
    while (true) {
      size_t bucket = 0;
      int64_t step = 0;
      float scale = 1.0f;
      {
        MutexLock lock(&mutex_);
        while (!stopping_ && !HasWork()) wake_.Wait(&mutex_);
        if (stopping_) return;
        bucket = next_bucket_;
        step = step_;
        scale = scale_;
        is_exchanging_ = true;
      }
      const absl::Duration start = RealClock()->Monotonic();
      const Traffic before = communicator_->traffic();
      const absl::Status status = Exchange(bucket, step, scale);
      const Traffic after = communicator_->traffic();

      MutexLock lock(&mutex_);
      is_exchanging_ = false;
      stats_.exchange_seconds += SecondsSince(start);
      stats_.bytes_sent += after.bytes_sent - before.bytes_sent;
      stats_.bytes_received += after.bytes_received - before.bytes_received;
      stats_.gradient_bytes += buckets_[bucket].elements * element_bytes_;
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

  absl::Status Exchange(size_t bucket, int64_t step, float scale) {
    if (buckets_[bucket].elements == 0) return absl::OkStatus();
    if (!codec_->is_identity()) {
      return reducers_[bucket].Reduce(step, scale, *codec_, *communicator_, &coded_buffers_);
    }
    const BucketMemory& memory = memory_[bucket];
    if (memory.run) return communicator_->AllReduceSum(memory.run, scale);
    char* place = static_cast<char*>(memory.staged.data());
    for (const TensorView& tensor : memory.tensors) {
      std::memcpy(place, tensor.data(), static_cast<size_t>(tensor.bytes()));
      place += tensor.bytes();
    }
    TY_RETURN_IF_ERROR(communicator_->AllReduceSum(memory.staged, scale));
    place = static_cast<char*>(memory.staged.data());
    for (const TensorView& tensor : memory.tensors) {
      std::memcpy(tensor.data(), place, static_cast<size_t>(tensor.bytes()));
      place += tensor.bytes();
    }
    return absl::OkStatus();
  }

  std::vector<TensorView> contributions_;
  ExchangeState* state_ = nullptr;
  const std::vector<Bucket> buckets_;
  Communicator* const communicator_;
  const std::unique_ptr<Codec> codec_;
  int64_t element_bytes_ = 4;
  std::vector<int> bucket_of_layer_;
  std::vector<BucketMemory> memory_;
  std::vector<char> staging_;
  std::vector<CodedReducer> reducers_;  // one a bucket, for codecs other than identity
  CodedBuffers coded_buffers_;
  int64_t transport_bytes_ = 0;

  mutable Mutex mutex_;
  CondVar wake_, done_;
  int64_t step_ ABSL_GUARDED_BY(mutex_) = 0;
  float scale_ ABSL_GUARDED_BY(mutex_) = 1.0f;
  std::vector<int> layers_missing_ ABSL_GUARDED_BY(mutex_);  // by bucket
  std::vector<bool> is_ready_ ABSL_GUARDED_BY(mutex_);       // by layer
  size_t next_bucket_ ABSL_GUARDED_BY(mutex_) = buckets_.size();
  bool is_exchanging_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status error_ ABSL_GUARDED_BY(mutex_);
  ExchangeStats stats_ ABSL_GUARDED_BY(mutex_);

  std::thread thread_;  // last: it uses all of the above
};

}  // namespace

absl::StatusOr<std::unique_ptr<GradientExchange>> GradientExchange::Create(const ExchangeOptions& options,
                                                                           std::vector<GradientLayer> layers,
                                                                           Communicator* communicator,
                                                                           ExchangeState* state) {
  std::unique_ptr<Codec> codec =
      options.make_codec ? options.make_codec({options.communication.codec, {}, ""}) : MakeIdentityCodec();
  const std::vector<GradientLayerSpec> specs = SpecOf(layers);
  const int64_t element_bytes = static_cast<int64_t>(kernels::SizeOf(CommonDType(layers)));
  std::vector<Bucket> buckets = LayOutBuckets(specs, element_bytes, options.communication.bucket_bytes);
  if (communicator->size() == 1) {
    return std::unique_ptr<GradientExchange>(std::make_unique<SoloExchange>(std::move(layers), std::move(buckets)));
  }
  const uint64_t own = LayoutDigest(specs, buckets) ^ static_cast<uint64_t>(element_bytes);
  std::vector<uint64_t> digests(static_cast<size_t>(communicator->size()));
  TY_RETURN_IF_ERROR(
      communicator->AllGatherBytes(&own, std::vector<int64_t>(digests.size(), sizeof(own)), digests.data()));
  for (size_t rank = 0; rank < digests.size(); ++rank) {
    if (digests[rank] != own) {
      return absl::FailedPreconditionError(absl::StrCat("rank ", rank, " lays its gradients out differently from rank ",
                                                        communicator->rank(), ": ", absl::Hex(digests[rank]), " vs ",
                                                        absl::Hex(own)));
    }
  }
  return std::unique_ptr<GradientExchange>(std::make_unique<ThreadedExchange>(
      options, std::move(layers), std::move(buckets), communicator, std::move(codec)));
}

}  // namespace trainyard::comm
