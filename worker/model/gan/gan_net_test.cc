#include "worker/model/gan/gan_net.h"

#include <cmath>
#include <map>

#include "absl/strings/str_cat.h"
#include "base/testing/status_matchers.h"
#include "gtest/gtest.h"
#include "kernels/core/philox.h"
#include "kernels/testing/host_tensor.h"

namespace trainyard::model {
namespace {

using kernels::Arena;
using kernels::DType;
using kernels::Stream;
using kernels::TensorView;
using kernels::testing::HostTensor;
using ::testing::HasSubstr;
using Values = std::vector<double>;

struct Net {
  Net(const GanNetOptions& options, bool is_generator) : arena(Reserve(options, is_generator)) {
    net = std::move(Make(options, is_generator, arena).value());
    TY_CHECK_EQ(arena.used_bytes(), reserved);
  }
  static absl::StatusOr<std::unique_ptr<GanNet>> Make(const GanNetOptions& options, bool is_generator, Arena& arena) {
    return is_generator ? GanNet::MakeGenerator(options, arena) : GanNet::MakeDiscriminator(options, arena);
  }
  Arena Reserve(const GanNetOptions& options, bool is_generator) {
    Arena counting = Arena::CountOnly();
    TY_CHECK_OK(Make(options, is_generator, counting));
    reserved = counting.used_bytes();
    return std::move(Arena::Reserve(reserved).value());
  }
  // Weights at which signals neither vanish nor explode, so that differences have digits; biases that are not 0.
  void InitializeForDifferences(Stream& stream) {
    net->Initialize(1, stream);
    uint32_t tensor = 0;
    for (const GanParameter& p : net->parameters()) {
      int64_t fan_in = p.size() / p.shape[0];
      if (p.dims() == 4 && p.name.find("deconv") != std::string::npos)
        fan_in = p.shape[0] * p.shape[2] * p.shape[3] / 4;
      const double std = p.dims() == 1 ? 0.2 : std::sqrt(2.0 / static_cast<double>(std::max<int64_t>(fan_in, 1)));
      const double mean = p.init_value;
      const kernels::PhiloxKey key = {.seed = 9, .purpose = kernels::kRandomTest, .tensor = tensor++};
      for (int64_t i = 0; i < p.size(); ++i) {
        p.weight.as<float>()[i] = static_cast<float>(mean + std * kernels::RandomNormal(key, static_cast<uint64_t>(i)));
      }
    }
  }

  int64_t reserved = 0;
  Arena arena;
  std::unique_ptr<GanNet> net;
};

double Penalty(GanNet& net, const GanNet::PenaltyArgs& args, Stream& stream) {
  net.GradientPenalty(args, stream);
  return net.LastPenalty();
}

int64_t Size(const std::vector<int64_t>& shape) {
  int64_t product = 1;
  for (int64_t extent : shape) product *= extent;
  return product;
}

Values ToDoubles(const TensorView& tensor) {
  const float* data = tensor.as<float>();
  return Values(data, data + tensor.size());
}

double Length(const Values& values) {
  double squares = 0;
  for (double value : values) squares += value * value;
  return std::sqrt(squares);
}

struct NetCase {
  friend void PrintTo(const NetCase& net, std::ostream* out) { *out << net.name; }
  std::string name;
  bool is_generator;
  GanNetOptions options;
};

std::vector<NetCase> SmallNets() {
  std::vector<NetCase> cases;
  for (const GanNorm norm : {GanNorm::kNone, GanNorm::kGroup, GanNorm::kBatch}) {
    const std::string suffix = norm == GanNorm::kNone ? "" : norm == GanNorm::kGroup ? "_group" : "_batch";
    const GanNetOptions resnet = {.architecture = GanArchitecture::kResNet32,
                                  .norm = norm,
                                  .batch = 3,
                                  .latent_dim = 5,
                                  .filters = 4,
                                  .channels = 3,
                                  .threads = 2};
    GanNetOptions dcgan = resnet;
    dcgan.architecture = GanArchitecture::kDcgan32;
    dcgan.channels = 1;
    cases.push_back({"resnet_generator" + suffix, true, resnet});
    cases.push_back({"dcgan_generator" + suffix, true, dcgan});
    cases.push_back({"dcgan_discriminator" + suffix, false, dcgan});
    if (norm != GanNorm::kNone) continue;
    GanNetOptions mlp = resnet;
    mlp.architecture = GanArchitecture::kMlp;
    mlp.hidden = 16;
    cases.push_back({"resnet_discriminator", false, resnet});
    cases.push_back({"mlp_generator", true, mlp});
    cases.push_back({"mlp_discriminator", false, mlp});
  }
  return cases;
}

class GanNetTest : public ::testing::TestWithParam<NetCase> {
 protected:
  GanNetTest() {
    net().InitializeForDifferences(stream_);
    x_ = HostTensor::Normal(DType::kF32, {net().net->batch() * Size(net().net->input_shape())}, 3);
    dy_ = HostTensor::Normal(DType::kF32, {net().net->batch() * Size(net().net->output_shape())}, 4);
  }
  Net& net() { return net_; }
  double Loss() {
    const Values y = ToDoubles(net_.net->Forward(x_, stream_));
    const Values dy = dy_.ToDoubles();
    double sum = 0;
    for (size_t i = 0; i < y.size(); ++i) sum += y[i] * dy[i];
    return sum;
  }
  // (f(v + h d) - f(v - h d)) / 2h and gradient . d must agree along directions of unit length, half the gradient's own
  // and half random: so both a wrong length and a wrong direction of the gradient show. Of five, `needed` must: ReLUs
  // that turn within the step spoil some. `scale`: what the tolerance is relative to, if the gradient itself is
  // shorter.
  void ExpectDirectionalDerivatives(const TensorView& values, const Values& gradient, double step, double tolerance,
                                    int needed, const std::function<double()>& f, double scale = 0) {
    const Values start = ToDoubles(values);
    const double length = Length(gradient);
    ASSERT_GT(length, 0);
    int agreeing = 0;
    std::string worst;
    for (uint64_t seed = 1; seed <= 5; ++seed) {
      Values d = HostTensor::Normal(DType::kF32, {values.size()}, 100 + seed).ToDoubles();
      const double random_length = Length(d);
      double expected = 0;
      for (size_t i = 0; i < d.size(); ++i) {
        d[i] = 0.7 * (gradient[i] / length + d[i] / random_length);
        expected += gradient[i] * d[i];
      }
      const auto at = [&](double h) {
        for (size_t i = 0; i < d.size(); ++i) values.as<float>()[i] = static_cast<float>(start[i] + h * d[i]);
        return f();
      };
      const double measured = (at(step) - at(-step)) / (2 * step);
      at(0);
      if (std::abs(measured - expected) <= tolerance * std::max(length, scale)) {
        ++agreeing;
      } else {
        worst += absl::StrCat(" measured ", measured, ", expected ", expected, ", length ", length, ";");
      }
    }
    EXPECT_GE(agreeing, needed) << worst;
  }

  Stream stream_{2};
  Net net_{GetParam().options, GetParam().is_generator};
  HostTensor x_{DType::kF32, {0}}, dy_{DType::kF32, {0}};
};

TEST_P(GanNetTest, BackwardMatchesDifferences) {
  const HostTensor dx(DType::kF32, {x_.view().size()});
  Loss();
  net_.net->Backward({.dy = dy_, .dx = dx}, stream_);
  const auto loss = [this] { return Loss(); };
  ExpectDirectionalDerivatives(net_.net->weights(), ToDoubles(net_.net->gradients()), 1e-3, 0.02, 5, loss);
  ExpectDirectionalDerivatives(x_, dx.ToDoubles(), 1e-3, 0.02, 5, loss);
}

// Each parameter by itself: the differences above hardly see a single bias.
TEST_P(GanNetTest, EveryParameterTensorHasItsGradient) {
  Loss();
  net_.net->Backward({.dy = dy_}, stream_);
  // Biases before a batch norm have no gradient but rounding.
  const double scale = 0.01 * Length(ToDoubles(net_.net->gradients()));
  for (const GanParameter& p : net_.net->parameters()) {
    SCOPED_TRACE(p.name);
    ExpectDirectionalDerivatives(
        p.weight, ToDoubles(p.gradient), 1e-3, 0.05, 3, [this] { return Loss(); }, scale);
  }
}

TEST_P(GanNetTest, ModesAndCallbacks) {
  Loss();
  std::vector<int> layers;
  const std::function<void(int)> record = [&](int layer) { layers.push_back(layer); };
  net_.net->Backward({.dy = dy_, .on_layer_ready = &record}, stream_);
  ASSERT_EQ(layers.size(), static_cast<size_t>(net_.net->layer_count()));
  for (size_t i = 0; i < layers.size(); ++i) EXPECT_EQ(layers[i], net_.net->layer_count() - 1 - static_cast<int>(i));
  const Values once = ToDoubles(net_.net->gradients());

  const HostTensor dx(DType::kF32, {x_.view().size()});
  Loss();
  net_.net->Backward({.dy = dy_, .dx = dx, .mode = GradientMode::kNone}, stream_);
  EXPECT_EQ(ToDoubles(net_.net->gradients()), once);
  Loss();
  net_.net->Backward({.dy = dy_, .mode = GradientMode::kAccumulate}, stream_);
  const Values twice = ToDoubles(net_.net->gradients());
  for (size_t i = 0; i < once.size(); ++i) ASSERT_NEAR(twice[i], 2 * once[i], 1e-4 * (1 + std::abs(once[i])));
  Loss();
  net_.net->Backward({.dy = dy_, .mode = GradientMode::kOverwrite}, stream_);
  EXPECT_EQ(ToDoubles(net_.net->gradients()), once);
}

TEST_P(GanNetTest, SameBitsForAnyThreadCount) {
  Stream one(1);
  const Values y = ToDoubles(net_.net->Forward(x_, one));
  net_.net->Backward({.dy = dy_}, one);
  const Values gradient = ToDoubles(net_.net->gradients());
  EXPECT_EQ(ToDoubles(net_.net->Forward(x_, stream_)), y);
  net_.net->Backward({.dy = dy_}, stream_);
  EXPECT_EQ(ToDoubles(net_.net->gradients()), gradient);
}

// What scores a moving average: other weights, registers shared between layers.
TEST_P(GanNetTest, ForwardOnlyNetOnSharedWeightsGivesTheSameBits) {
  GanNetOptions options = GetParam().options;
  options.trains = false;
  options.weights = net_.net->weights();
  const Net scorer(options, GetParam().is_generator);
  EXPECT_FALSE(static_cast<bool>(scorer.net->gradients()));
  EXPECT_LT(scorer.reserved, net_.reserved);
  EXPECT_EQ(ToDoubles(scorer.net->Forward(x_, stream_)), ToDoubles(net_.net->Forward(x_, stream_)));
}

INSTANTIATE_TEST_SUITE_P(All, GanNetTest, ::testing::ValuesIn(SmallNets()),
                         [](const auto& info) { return info.param.name; });

class PenaltyTest : public GanNetTest {};

std::vector<NetCase> PiecewiseLinearDiscriminators() {
  std::vector<NetCase> cases;
  for (NetCase& net : SmallNets()) {
    if (net.is_generator || net.options.norm != GanNorm::kNone) continue;
    net.options.gradient_penalty = true;
    cases.push_back(net);
  }
  return cases;
}

// GP itself from differences of D along coordinates would take 3072 evaluations; |g| from the checked dx instead.
TEST_P(PenaltyTest, IsTheMeanOverSamplesOfItsDefinition) {
  const int64_t batch = net_.net->batch();
  const HostTensor ones = HostTensor::Filled(DType::kF32, {batch}, 1);
  const HostTensor dx(DType::kF32, {x_.view().size()});
  net_.net->Forward(x_, stream_);
  net_.net->Backward({.dy = ones, .dx = dx}, stream_);
  const Values g = dx.ToDoubles();
  double expected = 0;
  for (int64_t n = 0; n < batch; ++n) {
    double squares = 0;
    const auto size = static_cast<int64_t>(g.size()) / batch;
    for (int64_t i = 0; i < size; ++i) squares += std::pow(g[static_cast<size_t>(n * size + i)], 2);
    expected += std::pow(std::sqrt(squares) - 1, 2) / static_cast<double>(batch);
  }
  EXPECT_GT(expected, 1e-3) << "nothing to see";
  EXPECT_NEAR(Penalty(*net_.net, {.xhat = x_}, stream_), expected, 1e-5 * (1 + expected));
}

// Of each weight matrix for itself, since a wrong tangent or a wrong delta spoils some of them only. GP jumps where a
// ReLU turns, so a direction may disagree; the tight check is PenaltyReferenceTest.
TEST_P(PenaltyTest, GradientMatchesDifferences) {
  constexpr float kLambda = 3;
  net_.net->GradientPenalty({.xhat = x_, .lambda = kLambda, .mode = GradientMode::kOverwrite}, stream_);
  const Values all = ToDoubles(net_.net->gradients());
  for (const GanParameter& p : net_.net->parameters()) {
    SCOPED_TRACE(p.name);
    const auto offset = p.gradient.as<float>() - net_.net->gradients().as<float>();
    const Values gradient(all.begin() + offset, all.begin() + offset + p.size());
    if (p.dims() == 1) {
      EXPECT_EQ(gradient, Values(gradient.size(), 0.0));
      continue;
    }
    ExpectDirectionalDerivatives(p.weight, gradient, 1e-4, 0.05, 3, [&] {
      return kLambda * Penalty(*net_.net, {.xhat = x_, .mode = GradientMode::kNone}, stream_);
    });
  }
}

TEST_P(PenaltyTest, AddsToTheGradientsAndReportsLayersInOrder) {
  net_.net->Forward(x_, stream_);
  net_.net->Backward({.dy = dy_}, stream_);
  const Values loss_gradient = ToDoubles(net_.net->gradients());
  std::vector<int> layers;
  const std::function<void(int)> record = [&](int layer) { layers.push_back(layer); };
  net_.net->GradientPenalty({.xhat = x_, .on_layer_ready = &record}, stream_);
  const Values sum = ToDoubles(net_.net->gradients());
  net_.net->GradientPenalty({.xhat = x_, .mode = GradientMode::kOverwrite}, stream_);
  const Values penalty_gradient = ToDoubles(net_.net->gradients());
  for (size_t i = 0; i < sum.size(); ++i) {
    ASSERT_NEAR(sum[i], loss_gradient[i] + penalty_gradient[i], 1e-4 * (1 + std::abs(sum[i])));
  }
  ASSERT_EQ(layers.size(), static_cast<size_t>(net_.net->layer_count()));
  for (size_t i = 0; i < layers.size(); ++i) EXPECT_EQ(layers[i], static_cast<int>(i));
}

INSTANTIATE_TEST_SUITE_P(All, PenaltyTest, ::testing::ValuesIn(PiecewiseLinearDiscriminators()),
                         [](const auto& info) { return info.param.name; });

// D(x) = w . x + b: GP = (|w| - 1)^2, dGP/dw = 2 (|w| - 1) w / |w|, whatever x.
TEST(PenaltyClosedFormTest, LinearCritic) {
  Stream stream(1);
  constexpr float kLambda = 10;
  Net net(
      {.architecture = GanArchitecture::kMlp, .batch = 5, .data_dim = 7, .hidden_layers = 0, .gradient_penalty = true},
      /*is_generator=*/false);
  net.net->Initialize(3, stream);
  ASSERT_EQ(net.net->parameter_count(), 8);
  const Values w = ToDoubles(net.net->parameters()[0].weight);
  const double norm = Length(w);
  const HostTensor x = HostTensor::Normal(DType::kF32, {5, 7}, 1);
  const double penalty = Penalty(*net.net, {.xhat = x, .lambda = kLambda, .mode = GradientMode::kOverwrite}, stream);
  EXPECT_NEAR(penalty, (norm - 1) * (norm - 1), 1e-6);
  const Values gradient = ToDoubles(net.net->gradients());
  for (size_t i = 0; i < w.size(); ++i) EXPECT_NEAR(gradient[i], kLambda * 2 * (norm - 1) * w[i] / norm, 2e-5);
  EXPECT_EQ(gradient[7], 0);

  // Where the gradient of D vanishes, the penalty has no direction: 1, and nothing that is not a number.
  for (size_t i = 0; i < w.size(); ++i) net.net->weights().as<float>()[i] = 0;
  EXPECT_EQ(Penalty(*net.net, {.xhat = x, .mode = GradientMode::kOverwrite}, stream), 1);
  EXPECT_EQ(ToDoubles(net.net->gradients()), Values(8, 0.0));
}

// The DCGAN discriminator's penalty in double, written out, with the slopes of the base point: relative 1e-3 for each
// of its weights.
class PenaltyReference {
 public:
  PenaltyReference(const GanNet& net, const HostTensor& x) : net_(net), x_(x.ToDoubles()) {
    for (const GanParameter& p : net.parameters()) weights.push_back(ToDoubles(p.weight));
    Forward();
  }
  // mean_n (|g_n| - 1)^2, g by the chain rule through the frozen slopes.
  double Penalty() const {
    const auto batch = static_cast<size_t>(net_.batch());
    double sum = 0;
    for (size_t n = 0; n < batch; ++n) {
      Values delta = weights[6];  // d D / d features
      for (int layer = 2; layer >= 0; --layer) {
        const auto l = static_cast<size_t>(layer);
        for (size_t i = 0; i < delta.size(); ++i) delta[i] *= slopes_[n][l][i];
        delta = Transpose(weights[2 * l], delta, layer);
      }
      double squares = 0;
      for (double value : delta) squares += value * value;
      sum += std::pow(std::sqrt(squares) - 1, 2) / static_cast<double>(batch);
    }
    return sum;
  }
  std::vector<Values> weights;

 private:
  template <typename Visit>
  void ForTaps(int layer, const Visit& visit) const {
    const auto& shape = net_.parameters()[static_cast<size_t>(2 * layer)].shape;
    const int64_t extent = 32 >> layer;
    for (int64_t f = 0; f < shape[0]; ++f)
      for (int64_t c = 0; c < shape[1]; ++c)
        for (int64_t a = 0; a < 4; ++a)
          for (int64_t b = 0; b < 4; ++b)
            for (int64_t i = 0; i < extent / 2; ++i)
              for (int64_t j = 0; j < extent / 2; ++j) {
                const int64_t y = 2 * i + a - 1;
                const int64_t x = 2 * j + b - 1;
                if (y < 0 || y >= extent || x < 0 || x >= extent) continue;
                visit(static_cast<size_t>((c * extent + y) * extent + x),
                      static_cast<size_t>((f * extent / 2 + i) * extent / 2 + j),
                      static_cast<size_t>(((f * shape[1] + c) * 4 + a) * 4 + b));
              }
  }
  Values Transpose(const Values& w, const Values& grid, int layer) const {
    const auto& shape = net_.parameters()[static_cast<size_t>(2 * layer)].shape;
    Values image(static_cast<size_t>(shape[1] * (32 >> layer) * (32 >> layer)));
    ForTaps(layer, [&](size_t x, size_t y, size_t k) { image[x] += w[k] * grid[y]; });
    return image;
  }
  void Forward() {
    const auto batch = static_cast<size_t>(net_.batch());
    const size_t size = x_.size() / batch;
    slopes_.resize(batch);
    for (size_t n = 0; n < batch; ++n) {
      Values value(x_.begin() + static_cast<int64_t>(n * size), x_.begin() + static_cast<int64_t>((n + 1) * size));
      for (int layer = 0; layer < 3; ++layer) {
        const auto l = static_cast<size_t>(layer);
        const Values& b = weights[2 * l + 1];
        const size_t pixels = static_cast<size_t>((16 >> layer) * (16 >> layer));
        Values out(b.size() * pixels);
        for (size_t i = 0; i < out.size(); ++i) out[i] = b[i / pixels];
        ForTaps(layer, [&](size_t x, size_t y, size_t k) { out[y] += weights[2 * l][k] * value[x]; });
        Values slope(out.size());
        for (size_t i = 0; i < out.size(); ++i) slope[i] = out[i] > 0 ? 1.0 : double{net_.options().leaky_slope};
        for (size_t i = 0; i < out.size(); ++i) out[i] *= slope[i];
        slopes_[n].push_back(slope);
        value = out;
      }
    }
  }

  const GanNet& net_;
  const Values x_;
  std::vector<std::vector<Values>> slopes_;  // of sample, layer, element
};

TEST(PenaltyReferenceTest, SmallConvolutionalCriticWithinOnePerMille) {
  Stream stream(2);
  Net net({.architecture = GanArchitecture::kDcgan32,
           .batch = 2,
           .filters = 2,
           .channels = 1,
           .gradient_penalty = true,
           .threads = 2},
          /*is_generator=*/false);
  net.InitializeForDifferences(stream);
  const HostTensor x = HostTensor::Normal(DType::kF32, {2, 1, 32, 32}, 5);
  const double penalty = Penalty(*net.net, {.xhat = x, .lambda = 1, .mode = GradientMode::kOverwrite}, stream);
  PenaltyReference reference(*net.net, x);
  EXPECT_NEAR(penalty, reference.Penalty(), 1e-4 * reference.Penalty());
  for (size_t p = 0; p < net.net->parameters().size(); p += 2) {
    const GanParameter& parameter = net.net->parameters()[p];
    SCOPED_TRACE(parameter.name);
    const Values gradient = ToDoubles(parameter.gradient);
    double largest = 0;
    for (double value : gradient) largest = std::max(largest, std::abs(value));
    ASSERT_GT(largest, 0);
    for (size_t i = 0; i < gradient.size(); i += 7) {
      constexpr double kStep = 1e-5;
      double& w = reference.weights[p][i];
      const double value = w;
      w = value + kStep;
      const double above = reference.Penalty();
      w = value - kStep;
      const double below = reference.Penalty();
      w = value;
      ASSERT_NEAR(gradient[i], (above - below) / (2 * kStep), 1e-3 * largest) << i;
    }
  }
}

struct CountCase {
  GanNetOptions options;
  bool is_generator;
  int64_t count;
};

TEST(GanNetCountTest, ParameterCountsAreThoseOfTheOriginals) {
  const GanNetOptions resnet = {.norm = GanNorm::kGroup};
  const GanNetOptions dcgan = {.architecture = GanArchitecture::kDcgan32, .norm = GanNorm::kBatch, .filters = 64};
  GanNetOptions resnet_critic = resnet;
  resnet_critic.norm = GanNorm::kNone;
  GanNetOptions dcgan_critic = dcgan;
  dcgan_critic.norm = GanNorm::kNone;
  for (const CountCase& c :
       {CountCase{resnet, true, 1548547}, CountCase{resnet_critic, false, 1053825}, CountCase{dcgan, true, 1195587},
        CountCase{dcgan, false, 663745}, CountCase{dcgan_critic, false, 662977}}) {
    Arena arena = Arena::CountOnly();
    ASSERT_OK_AND_ASSIGN(auto net, Net::Make(c.options, c.is_generator, arena));
    EXPECT_EQ(net->parameter_count(), c.count);
    EXPECT_EQ(arena.plan().at("weights"), (4 * c.count + 63) / 64 * 64);
  }
}

TEST(GanNetCountTest, NamesLayersAndInitialValues) {
  Stream stream(1);
  Net g({.norm = GanNorm::kGroup, .latent_dim = 64, .filters = 16}, true);
  Net d({.architecture = GanArchitecture::kDcgan32, .filters = 32}, false);
  g.net->Initialize(5, stream);
  d.net->Initialize(5, stream);
  std::map<std::string, const GanParameter*> by_name;
  for (const Net* net : {&g, &d}) {
    const float* next = net->net->weights().as<float>();
    int layer = 0;
    for (const GanParameter& p : net->net->parameters()) {
      EXPECT_TRUE(by_name.emplace(p.name, &p).second) << p.name << " twice";
      EXPECT_EQ(p.weight.as<float>(), next) << "gap before " << p.name;
      EXPECT_TRUE(p.layer == layer || p.layer == layer + 1) << p.name;
      layer = p.layer;
      next += p.size();
    }
    EXPECT_EQ(layer, net->net->layer_count() - 1);
  }
  for (const char* name :
       {"generator.linear.weight", "generator.block2.norm1.bias", "generator.block3.deconv.weight",
        "generator.block1.shortcut_deconv.weight", "generator.block1.conv.weight", "generator.norm.weight",
        "generator.head.weight", "discriminator.conv1.weight", "discriminator.head.bias"}) {
    EXPECT_EQ(by_name.count(name), 1u) << name;
  }
  const GanParameter& weight = *by_name.at("generator.block3.deconv.weight");
  EXPECT_EQ(weight.shape, (std::vector<int64_t>{16, 16, 4, 4}));
  double squares = 0;
  for (double value : ToDoubles(weight.weight)) squares += value * value;
  EXPECT_NEAR(std::sqrt(squares / static_cast<double>(weight.size())), 0.02, 0.001);
  EXPECT_EQ(ToDoubles(by_name.at("generator.norm.weight")->weight), Values(16, 1.0));
  EXPECT_EQ(ToDoubles(by_name.at("generator.head.bias")->weight), Values(3, 0.0));
  EXPECT_NE(ToDoubles(by_name.at("generator.linear.weight")->weight)[0],
            ToDoubles(by_name.at("discriminator.conv1.weight")->weight)[0]);
}

TEST(GanNetOptionsTest, RefusesWhatCannotBe) {
  const auto refused = [](GanNetOptions options, bool is_generator, const char* what) {
    Arena arena = Arena::CountOnly();
    EXPECT_THAT(Net::Make(options, is_generator, arena), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(what)));
  };
  refused({.architecture = GanArchitecture::kDcgan32, .norm = GanNorm::kBatch, .gradient_penalty = true}, false,
          "gradient_penalty");
  refused({.architecture = GanArchitecture::kDcgan32, .norm = GanNorm::kGroup, .gradient_penalty = true}, false,
          "gradient_penalty");
  refused({.gradient_penalty = true}, true, "gradient_penalty");
  refused({.trains = false, .gradient_penalty = true}, false, "gradient_penalty");
  refused({.norm = GanNorm::kGroup}, false, "norm");
  refused({.architecture = GanArchitecture::kMlp, .norm = GanNorm::kGroup}, true, "norm");
  refused({.batch = 0}, true, "batch: 0 not in [1,");
  refused({.channels = 5}, true, "channels");
  refused({.leaky_slope = NAN}, false, "leaky_slope");
  refused({.architecture = GanArchitecture::kMlp, .hidden_layers = 17}, true, "hidden_layers");
}

}  // namespace
}  // namespace trainyard::model
