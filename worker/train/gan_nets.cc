#include "worker/train/gan_nets.h"

#include "base/check.h"
#include "base/overloaded.h"

namespace trainyard::train {
namespace {

model::GanNorm NormOf(spec::GanNormKind norm) {
  switch (norm) {
    case spec::GanNormKind::kNone:
      return model::GanNorm::kNone;
    case spec::GanNormKind::kGroup:
      return model::GanNorm::kGroup;
    case spec::GanNormKind::kBatch:
      return model::GanNorm::kBatch;
  }
  return model::GanNorm::kNone;
}

model::GanNetOptions CommonOptions(const spec::QodaGanOptions& options, const std::vector<int64_t>& sample_shape,
                                   int64_t batch, int threads) {
  TY_CHECK(sample_shape.size() == 3 || sample_shape.size() == 1);
  model::GanNetOptions net;
  net.batch = batch;
  net.threads = threads;
  net.latent_dim = options.latent_dim;
  if (sample_shape.size() == 3) net.channels = sample_shape[0];
  if (sample_shape.size() == 1) net.data_dim = sample_shape[0];
  std::visit(Overloaded{
                 [&](const spec::Resnet32Options& resnet) {
                   net.architecture = model::GanArchitecture::kResNet32;
                   net.filters = resnet.filters;
                 },
                 [&](const spec::Dcgan32Options& dcgan) {
                   net.architecture = model::GanArchitecture::kDcgan32;
                   net.filters = dcgan.filters;
                 },
                 [&](const spec::GanMlpOptions& mlp) {
                   net.architecture = model::GanArchitecture::kMlp;
                   net.hidden = mlp.hidden;
                   net.hidden_layers = mlp.layers;
                 },
             },
             options.networks);
  return net;
}

}  // namespace

model::GanNetOptions GeneratorOptions(const spec::QodaGanOptions& options, const std::vector<int64_t>& sample_shape,
                                      int64_t batch, int threads) {
  model::GanNetOptions net = CommonOptions(options, sample_shape, batch, threads);
  if (const auto* resnet = std::get_if<spec::Resnet32Options>(&options.networks)) {
    net.norm = NormOf(resnet->generator_norm);
  }
  if (const auto* dcgan = std::get_if<spec::Dcgan32Options>(&options.networks)) {
    net.norm = NormOf(dcgan->generator_norm);
  }
  return net;
}

model::GanNetOptions DiscriminatorOptions(const spec::QodaGanOptions& options, const std::vector<int64_t>& sample_shape,
                                          int64_t batch, int threads) {
  model::GanNetOptions net = CommonOptions(options, sample_shape, batch, threads);
  if (const auto* dcgan = std::get_if<spec::Dcgan32Options>(&options.networks)) {
    net.norm = NormOf(dcgan->discriminator_norm);
  }
  net.gradient_penalty = options.gp_lambda > 0;
  return net;
}

}  // namespace trainyard::train
