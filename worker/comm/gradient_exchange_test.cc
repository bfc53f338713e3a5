#include "worker/comm/gradient_exchange.h"

#include <cmath>
#include <cstring>
#include <functional>
#include <thread>

#include "base/mutex.h"
#include "base/testing/status_matchers.h"
#include "gtest/gtest.h"
#include "worker/comm/local/local_communicator.h"

namespace trainyard::comm {
namespace {

using kernels::BFloat16;
using kernels::DType;
using kernels::TensorView;
using ::testing::HasSubstr;

// A model of three layers: (40, 30) matrix and a vector of 30, a layer without parameters, (64, 50) and (7).
struct Shape {
  int64_t elements;
  int dims;
};
const std::vector<std::vector<Shape>> kLayers = {{{1200, 2}, {30, 1}}, {}, {{3200, 2}, {7, 1}}};
constexpr int64_t kElements = 1200 + 30 + 3200 + 7;

float Gradient(int rank, int64_t step, int64_t i) {
  return std::sin(static_cast<float>(i + 1) * (static_cast<float>(rank) + 0.7f)) *
         std::ldexp(1.0f, static_cast<int>((i + step) % 13));
}

// One rank's gradients, in one run of memory or each tensor by itself.
class Gradients {
 public:
  explicit Gradients(bool scattered) : memory_(static_cast<size_t>(kElements + 100)) {
    int64_t at = 0;
    for (const auto& shapes : kLayers) {
      GradientLayer& layer = layers_.emplace_back();
      for (const Shape& shape : shapes) {
        layer.tensors.push_back({TensorView(memory_.data() + at, DType::kF32, {shape.elements}), shape.dims, ""});
        at += shape.elements + (scattered ? 3 : 0);
      }
    }
  }
  const std::vector<GradientLayer>& layers() const { return layers_; }

  void Fill(int rank, int64_t step) {
    int64_t i = 0;
    ForEach([&](float& value) { value = Gradient(rank, step, i++); });
  }
  std::vector<float> Values() {
    std::vector<float> values;
    ForEach([&](float& value) { values.push_back(value); });
    return values;
  }

 private:
  void ForEach(const std::function<void(float&)>& visit) {
    for (const GradientLayer& layer : layers_) {
      for (const GradientTensor& tensor : layer.tensors) {
        for (int64_t i = 0; i < tensor.gradient.size(); ++i) visit(tensor.gradient.as<float>()[i]);
      }
    }
  }
  std::vector<float> memory_;
  std::vector<GradientLayer> layers_;
};

std::vector<float> Expected(int ranks, int64_t step, float scale) {
  std::vector<float> sum;
  for (int64_t i = 0; i < kElements; ++i) {
    float value = Gradient(0, step, i);
    for (int rank = 1; rank < ranks; ++rank) value += Gradient(rank, step, i);
    sum.push_back(value * scale);
  }
  return sum;
}

// Keeps the upper 16 bits of a float: lossy, with a fixed size, and easy to predict.
class TruncatingCodec final : public Codec {
 public:
  absl::string_view name() const override { return "truncating"; }
  int64_t MaxBytes(int64_t elements) const override { return 2 * elements; }
  int64_t Encode(const CodecSlice& slice, const CodecKey& key, const float* values, char* out,
                 kernels::Stream&) override {
    for (int64_t i = 0; i < slice.elements; ++i) {
      std::memcpy(out + 2 * i, reinterpret_cast<const char*>(values + i) + 2, 2);
    }
    return 2 * slice.elements;
  }
  int64_t Decode(const CodecSlice& slice, const char* in, float* values, kernels::Stream&) override {
    for (int64_t i = 0; i < slice.elements; ++i) {
      values[i] = 0;
      std::memcpy(reinterpret_cast<char*>(values + i) + 2, in + 2 * i, 2);
    }
    return 2 * slice.elements;
  }
};

// f32 by way of the codec path.
class PlainCodec final : public Codec {
 public:
  absl::string_view name() const override { return "plain"; }
  int64_t MaxBytes(int64_t elements) const override { return 4 * elements; }
  int64_t Encode(const CodecSlice& slice, const CodecKey& key, const float* values, char* out,
                 kernels::Stream&) override {
    std::memcpy(out, values, static_cast<size_t>(4 * slice.elements));
    return 4 * slice.elements;
  }
  int64_t Decode(const CodecSlice& slice, const char* in, float* values, kernels::Stream&) override {
    std::memcpy(values, in, static_cast<size_t>(4 * slice.elements));
    return 4 * slice.elements;
  }
};

struct Settings {
  int ranks = 2;
  bool scattered = false;
  int64_t bucket_bytes = 1 << 20;
  float scale = 0.5f;
  std::function<std::unique_ptr<Codec>()> codec = nullptr;  // of all matrices; null: nothing is coded
};

struct Outcome {
  std::vector<std::vector<float>> values;  // by rank, after the last step
  std::vector<ExchangeStats> stats;
};

constexpr int64_t kSteps = 3;

Outcome Exchange(const Settings& run) {
  auto communicators = MakeLocalCommunicators(run.ranks, {.timeout = absl::Seconds(20)});
  Outcome outcome{std::vector<std::vector<float>>(static_cast<size_t>(run.ranks)),
                  std::vector<ExchangeStats>(static_cast<size_t>(run.ranks))};
  std::vector<std::thread> threads;
  for (int rank = 0; rank < run.ranks; ++rank) {
    threads.emplace_back([&, rank] {
      const size_t r = static_cast<size_t>(rank);
      Gradients gradients(run.scattered);
      ExchangeOptions options;
      options.communication.bucket_bytes = run.bucket_bytes;
      if (run.codec) {
        options.communication.codec = spec::MaxminCodec();  // whatever the test has instead of it
        options.make_codec = [&](const CodecSetting&) { return run.codec(); };
      }
      ASSERT_OK_AND_ASSIGN(auto exchange,
                           GradientExchange::Create(options, gradients.layers(), communicators[r].get()));
      for (int64_t step = 0; step < kSteps; ++step) {
        gradients.Fill(rank, step);
        exchange->Begin(step, run.scale);
        for (int layer : {2, 1, 0}) exchange->LayerReady(layer);
        ASSERT_OK(exchange->Wait());
      }
      outcome.values[r] = gradients.Values();
      outcome.stats[r] = exchange->stats();
    });
  }
  for (std::thread& thread : threads) thread.join();
  return outcome;
}

TEST(GradientExchangeTest, ScaledSumIsBitIdenticalOnAllRanksForAnyBucketsMemoryAndCodecPath) {
  for (int ranks : {1, 2, 3, 4}) {
    for (bool scattered : {false, true}) {
      for (int64_t bucket_bytes : {1, 5000, 1 << 20}) {
        for (bool coded : {false, true}) {
          Settings run{ranks, scattered, bucket_bytes, 1.0f / 3.0f, nullptr};
          if (coded) run.codec = [] { return std::make_unique<PlainCodec>(); };
          const Outcome outcome = Exchange(run);
          for (const std::vector<float>& values : outcome.values) {
            ASSERT_EQ(values, Expected(ranks, kSteps - 1, run.scale)) << ranks << scattered << bucket_bytes << coded;
          }
        }
      }
    }
  }
}

// The owner of a part must keep what the others decode, and vectors must not be coded.
TEST(GradientExchangeTest, ALossyCodecLeavesRanksEqualAndVectorsExact) {
  Settings run;
  run.ranks = 3;
  run.codec = [] { return std::make_unique<TruncatingCodec>(); };
  const Outcome outcome = Exchange(run);
  EXPECT_EQ(outcome.values[0], outcome.values[1]);
  EXPECT_EQ(outcome.values[0], outcome.values[2]);
  const std::vector<float> exact = Expected(3, kSteps - 1, run.scale);
  int64_t inexact = 0;
  for (int64_t i = 0; i < kElements; ++i) {
    const size_t at = static_cast<size_t>(i);
    const bool is_vector = (i >= 1200 && i < 1230) || i >= 1230 + 3200;
    if (is_vector) {
      ASSERT_EQ(outcome.values[0][at], exact[at]) << i;
    } else {
      inexact += outcome.values[0][at] != exact[at];
    }
  }
  EXPECT_GT(inexact, 4000);  // else the codec was not used
}

// 2 (R-1)/R of the gradients with identity; about half of it with two bytes an element.
TEST(GradientExchangeTest, CountsBytesOnTheWire) {
  Settings run;
  run.ranks = 4;
  const Outcome identity = Exchange(run);
  int64_t sent = 0;
  for (const ExchangeStats& stats : identity.stats) {
    EXPECT_EQ(stats.steps, kSteps);
    EXPECT_EQ(stats.gradient_bytes, kSteps * kElements * 4);
    EXPECT_GT(stats.exchange_seconds, 0);
    sent += stats.bytes_sent;
  }
  EXPECT_EQ(sent, 4 * kSteps * 2 * kElements * 4 * 3 / 4);
  run.codec = [] { return std::make_unique<TruncatingCodec>(); };
  int64_t coded_sent = 0;
  for (const ExchangeStats& stats : Exchange(run).stats) coded_sent += stats.bytes_sent;
  EXPECT_NEAR(static_cast<double>(coded_sent) / static_cast<double>(sent), 0.5, 0.02);
}

TEST(GradientExchangeTest, Bf16IsSummedInF32AndRoundedOnce) {
  auto communicators = MakeLocalCommunicators(2);
  std::vector<std::vector<BFloat16>> values(2, std::vector<BFloat16>(1000));
  for (size_t rank = 0; rank < 2; ++rank) {
    for (size_t i = 0; i < 1000; ++i) {
      values[rank][i] = kernels::FromFloat<BFloat16>(Gradient(static_cast<int>(rank), 0, static_cast<int64_t>(i)));
    }
  }
  const auto before = values;
  std::vector<std::thread> threads;
  for (size_t rank = 0; rank < 2; ++rank) {
    threads.emplace_back([&, rank] {
      GradientLayer layer{{{TensorView(values[rank].data(), DType::kBF16, {1000}), 2, ""}}};
      ASSERT_OK_AND_ASSIGN(auto exchange, GradientExchange::Create({}, {layer}, communicators[rank].get()));
      exchange->Begin(1, 0.3f);
      exchange->LayerReady(0);
      ASSERT_OK(exchange->Wait());
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (size_t i = 0; i < 1000; ++i) {
    const float sum = kernels::ToFloat(before[0][i]) + kernels::ToFloat(before[1][i]);
    for (size_t rank : {0, 1}) EXPECT_EQ(values[rank][i].bits, kernels::FromFloat<BFloat16>(sum * 0.3f).bits) << i;
  }
}

// A communicator of two that is alone, and reports what it is asked.
class SpyCommunicator final : public Communicator {
 public:
  int rank() const override { return 0; }
  int size() const override { return 2; }
  absl::Status AllReduceSum(const TensorView& data, float scale) override {
    MutexLock lock(&mutex_);
    order_.push_back(data.as<float>()[0]);
    changed_.NotifyAll();
    while (held_ && error_.ok()) changed_.Wait(&mutex_);
    return error_;
  }
  absl::Status ReduceScatterSum(const TensorView&, float) override { return absl::OkStatus(); }
  absl::Status AllGatherParts(const TensorView&) override { return absl::OkStatus(); }
  absl::Status AllGatherBytes(const void* in, const std::vector<int64_t>& bytes, void* out) override {
    for (int rank = 0; rank < 2; ++rank) {
      std::memcpy(static_cast<char*>(out) + rank * bytes[0], in, static_cast<size_t>(bytes[0]));
    }
    return absl::OkStatus();
  }
  absl::Status AllToAllBytes(const Blocks&) override { return absl::OkStatus(); }
  absl::Status Broadcast(void*, int64_t, int) override { return absl::OkStatus(); }
  absl::Status Send(const void*, int64_t, int, uint32_t) override { return absl::OkStatus(); }
  absl::Status Recv(void*, int64_t, int, uint32_t) override { return absl::OkStatus(); }
  absl::Status Barrier() override { return absl::OkStatus(); }
  int64_t ReserveSum(int64_t) override { return 0; }
  void Abort() override { Fail(absl::AbortedError("aborted")); }
  absl::Status health() const override { return absl::OkStatus(); }
  Traffic traffic() const override { return {}; }

  void Fail(const absl::Status& error) {
    MutexLock lock(&mutex_);
    error_ = error;
    changed_.NotifyAll();
  }
  void Hold() {
    MutexLock lock(&mutex_);
    held_ = true;
  }
  // Returns the first element of each bucket asked for, once there are `count`.
  std::vector<float> WaitForBuckets(size_t count) {
    MutexLock lock(&mutex_);
    while (order_.size() < count) changed_.Wait(&mutex_);
    return order_;
  }

 private:
  Mutex mutex_;
  CondVar changed_;
  std::vector<float> order_ ABSL_GUARDED_BY(mutex_);
  bool held_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status error_ ABSL_GUARDED_BY(mutex_);
};

// Layer l's gradients all have the value l, one layer a bucket.
struct FourLayers {
  FourLayers() {
    for (int layer = 0; layer < 4; ++layer) {
      values.emplace_back(100, static_cast<float>(layer));
      layers.push_back({{{TensorView(values.back().data(), DType::kF32, {100}), 2, ""}}});
    }
    options.communication.bucket_bytes = 400;
  }
  std::vector<std::vector<float>> values;
  std::vector<GradientLayer> layers;
  ExchangeOptions options;
};

TEST(GradientExchangeTest, ABucketIsExchangedWhileBackwardGoesOn) {
  FourLayers model;
  SpyCommunicator spy;
  ASSERT_OK_AND_ASSIGN(auto exchange, GradientExchange::Create(model.options, model.layers, &spy));
  EXPECT_EQ(exchange->buckets().size(), 4u);
  exchange->Begin(0, 1.0f);
  exchange->LayerReady(3);
  EXPECT_EQ(spy.WaitForBuckets(1),
            std::vector<float>({3}));  // returns only if layer 3 goes out before layer 2 is ready
  exchange->LayerReady(2);
  EXPECT_EQ(spy.WaitForBuckets(2), std::vector<float>({3, 2}));
  // Ready out of turn: waits for layer 1, since all ranks exchange in one order.
  exchange->LayerReady(0);
  exchange->LayerReady(1);
  EXPECT_OK(exchange->Wait());
  EXPECT_EQ(spy.WaitForBuckets(4), std::vector<float>({3, 2, 1, 0}));
}

TEST(GradientExchangeTest, AnErrorIsReportedByWaitAndStays) {
  FourLayers model;
  SpyCommunicator spy;
  ASSERT_OK_AND_ASSIGN(auto exchange, GradientExchange::Create(model.options, model.layers, &spy));
  spy.Fail(absl::UnavailableError("rank 1 has gone"));
  for (int step = 0; step < 2; ++step) {
    exchange->Begin(step, 1.0f);
    for (int layer = 3; layer >= 0; --layer) exchange->LayerReady(layer);
    EXPECT_THAT(exchange->Wait(), StatusIs(absl::StatusCode::kUnavailable, HasSubstr("step 0, layers 3..3: rank 1")));
  }
}

TEST(GradientExchangeTest, GivingUpHalfWayAbortsWhatIsUnderWay) {
  FourLayers model;
  SpyCommunicator spy;
  spy.Hold();
  ASSERT_OK_AND_ASSIGN(auto exchange, GradientExchange::Create(model.options, model.layers, &spy));
  exchange->Begin(0, 1.0f);
  exchange->LayerReady(3);
  spy.WaitForBuckets(1);
  exchange.reset();  // would never return otherwise
  EXPECT_TRUE(absl::IsAborted(spy.AllReduceSum(model.layers[0].tensors[0].gradient, 1.0f)));
}

TEST(GradientExchangeTest, RanksWithDifferentLayoutsAreRefused) {
  auto communicators = MakeLocalCommunicators(2);
  std::vector<std::thread> threads;
  for (size_t rank = 0; rank < 2; ++rank) {
    threads.emplace_back([&, rank] {
      FourLayers model;
      if (rank == 1) model.options.communication.bucket_bytes = 800;
      EXPECT_THAT(GradientExchange::Create(model.options, model.layers, communicators[rank].get()),
                  StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("lays its gradients out differently")));
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace trainyard::comm
