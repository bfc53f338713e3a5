#include "worker/model/gan/gan_architectures.h"

#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace trainyard::model {
namespace {

using Shape = LayerProgram::Shape;
using Geometry = LayerProgram::Geometry;

constexpr float kImageInitStd = 0.02f;
constexpr float kFanInInit = 0.0f;  // sqrt(2 / in)
constexpr int64_t kExtent = 32;
constexpr int64_t kFirstExtent = 4;  // of the generators' first image
constexpr Geometry kConv3 = {.kernel = 3, .stride = 1, .padding = 1};
constexpr Geometry kConv3Down = {.kernel = 3, .stride = 2, .padding = 1};
constexpr Geometry kConv4Down = {.kernel = 4, .stride = 2, .padding = 1};  // as a transpose: doubles the extent
constexpr Geometry kConv1Down = {.kernel = 1, .stride = 2};
constexpr Geometry kConv1Up = {.kernel = 1, .stride = 2, .output_padding = 1};

// norm, ReLU; leaves x as it is.
int NormRelu(LayerProgram& p, const std::string& name, int x, GanNorm norm) {
  return norm == GanNorm::kNone ? p.LeakyRelu(x, 0) : p.LeakyReluInPlace(p.Norm(name, x, norm), 0);
}

LayerProgram ResNetGenerator(const GanNetOptions& o) {
  LayerProgram p("generator", o.batch, {.channels = o.latent_dim}, kImageInitStd);
  int x = p.Linear("linear", 0, {o.filters, kFirstExtent, kFirstExtent});
  for (int block = 1; block <= 3; ++block) {
    const std::string name = absl::StrCat("block", block, ".");
    int h = p.ConvTranspose(name + "deconv", NormRelu(p, name + "norm1", x, o.norm), o.filters, kConv4Down);
    h = NormRelu(p, name + "norm2", h, o.norm);
    const int y = p.ConvTranspose(name + "shortcut_deconv", x, o.filters, kConv1Up);
    x = p.Conv(name + "conv", h, o.filters, kConv3, y);
  }
  p.TanhInPlace(p.Conv("head", NormRelu(p, "norm", x, o.norm), o.channels, kConv3));
  return p;
}

LayerProgram ResNetDiscriminator(const GanNetOptions& o) {
  LayerProgram p("discriminator", o.batch, {o.channels, kExtent, kExtent}, kImageInitStd);
  int h = p.LeakyReluInPlace(p.Conv("block1.conv1", 0, o.filters, kConv3), 0);
  int x = p.Conv("block1.shortcut_conv", 0, o.filters, kConv1Down);
  x = p.Conv("block1.conv2", h, o.filters, kConv3Down, x);
  for (int block = 2; block <= 4; ++block) {
    const std::string name = absl::StrCat("block", block, ".");
    const bool is_down = block == 2;
    h = p.Conv(name + "conv1", p.LeakyRelu(x, 0), o.filters, kConv3);
    h = p.LeakyReluInPlace(h, 0);
    const int y = is_down ? p.Conv(name + "shortcut_conv", x, o.filters, kConv1Down) : p.Copy(x);
    x = p.Conv(name + "conv2", h, o.filters, is_down ? kConv3Down : kConv3, y);
  }
  p.Linear("head", p.PixelMean(p.LeakyReluInPlace(x, 0)), {});
  return p;
}

LayerProgram DcganGenerator(const GanNetOptions& o) {
  LayerProgram p("generator", o.batch, {.channels = o.latent_dim}, kImageInitStd);
  // The first norm is one over features, as in the original: each of the 4F x 4 x 4 has its own weight.
  int x = p.Linear("linear", 0, {4 * o.filters * kFirstExtent * kFirstExtent});
  x = p.LeakyReluInPlace(p.Norm("norm1", x, o.norm), 0);
  p.Reshape(x, {4 * o.filters, kFirstExtent, kFirstExtent});
  x = p.ConvTranspose("deconv1", x, 2 * o.filters, kConv4Down);
  x = p.LeakyReluInPlace(p.Norm("norm2", x, o.norm), 0);
  x = p.ConvTranspose("deconv2", x, o.filters, kConv4Down);
  x = p.LeakyReluInPlace(p.Norm("norm3", x, o.norm), 0);
  p.TanhInPlace(p.ConvTranspose("head", x, o.channels, kConv4Down));
  return p;
}

LayerProgram DcganDiscriminator(const GanNetOptions& o) {
  LayerProgram p("discriminator", o.batch, {o.channels, kExtent, kExtent}, kImageInitStd);
  int x = p.LeakyReluInPlace(p.Conv("conv1", 0, o.filters, kConv4Down), o.leaky_slope);
  x = p.Norm("norm2", p.Conv("conv2", x, 2 * o.filters, kConv4Down), o.norm);
  x = p.LeakyReluInPlace(x, o.leaky_slope);
  x = p.Norm("norm3", p.Conv("conv3", x, 4 * o.filters, kConv4Down), o.norm);
  p.Linear("head", p.LeakyReluInPlace(x, o.leaky_slope), {});
  return p;
}

LayerProgram Mlp(const GanNetOptions& o, const char* prefix, int64_t in, int64_t out, float slope) {
  LayerProgram p(prefix, o.batch, {.channels = in}, kFanInInit);
  int x = 0;
  for (int64_t i = 1; i <= o.hidden_layers; ++i) {
    x = p.LeakyReluInPlace(p.Linear(absl::StrCat("linear", i), x, {.channels = o.hidden}), slope);
  }
  p.Linear("head", x, {.channels = out});
  return p;
}

}  // namespace

LayerProgram GeneratorProgram(const GanNetOptions& options) {
  switch (options.architecture) {
    case GanArchitecture::kResNet32:
      return ResNetGenerator(options);
    case GanArchitecture::kDcgan32:
      return DcganGenerator(options);
    case GanArchitecture::kMlp:
      break;
  }
  return Mlp(options, "generator", options.latent_dim, options.data_dim, 0);
}

LayerProgram DiscriminatorProgram(const GanNetOptions& options) {
  switch (options.architecture) {
    case GanArchitecture::kResNet32:
      return ResNetDiscriminator(options);
    case GanArchitecture::kDcgan32:
      return DcganDiscriminator(options);
    case GanArchitecture::kMlp:
      break;
  }
  return Mlp(options, "discriminator", options.data_dim, 1, options.leaky_slope);
}

}  // namespace trainyard::model
