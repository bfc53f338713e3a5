#include "proto/spec/qoda_gan_options.h"

#include "absl/strings/str_cat.h"
#include "proto/spec/choice.h"
#include "proto/spec/field_errors.h"
#include "proto/v1/qoda_gan.pb.h"

namespace trainyard::spec {
namespace {

constexpr int64_t kMaxUpdates = 1'000'000'000;

GanNormKind ParseNorm(v1::GanNorm norm, GanNormKind if_unset, absl::string_view name, FieldErrors& errors) {
  return Choose<v1::GanNorm, GanNormKind>(errors, name, norm,
                                          {{v1::GAN_NORM_UNSPECIFIED, if_unset},
                                           {v1::GAN_NORM_NONE, GanNormKind::kNone},
                                           {v1::GAN_NORM_GROUP, GanNormKind::kGroup},
                                           {v1::GAN_NORM_BATCH, GanNormKind::kBatch}});
}

GanNetworkOptions ParseNetworks(const v1::GanNetworks& spec, FieldErrors& errors) {
  switch (spec.kind_case()) {
    case v1::GanNetworks::kResnet32: {
      FieldErrors inner = errors.In("resnet32");
      Resnet32Options options;
      if (spec.resnet32().has_filters()) options.filters = inner.InRange("filters", spec.resnet32().filters(), 1, 1024);
      options.generator_norm =
          ParseNorm(spec.resnet32().generator_norm(), options.generator_norm, "generator_norm", inner);
      return options;
    }
    case v1::GanNetworks::kDcgan32: {
      FieldErrors inner = errors.In("dcgan32");
      Dcgan32Options options;
      if (spec.dcgan32().has_filters()) options.filters = inner.InRange("filters", spec.dcgan32().filters(), 1, 1024);
      options.generator_norm =
          ParseNorm(spec.dcgan32().generator_norm(), options.generator_norm, "generator_norm", inner);
      options.discriminator_norm =
          ParseNorm(spec.dcgan32().discriminator_norm(), options.discriminator_norm, "discriminator_norm", inner);
      return options;
    }
    case v1::GanNetworks::kMlp: {
      FieldErrors inner = errors.In("mlp");
      GanMlpOptions options;
      if (spec.mlp().has_hidden()) options.hidden = inner.InRange("hidden", spec.mlp().hidden(), 1, 8192);
      if (spec.mlp().has_layers()) options.layers = inner.InRange("layers", spec.mlp().layers(), 1, 16);
      return options;
    }
    case v1::GanNetworks::KIND_NOT_SET:
      break;
  }
  errors.Add("", "missing; give one of resnet32, dcgan32, mlp");
  return GanMlpOptions{};
}

GanMixtureOptions ParseMixture(const v1::GanMixture& spec, FieldErrors& errors) {
  GanMixtureOptions options;
  options.layout = Choose<v1::GanMixture::Layout, MixtureLayout>(
      errors, "layout", spec.layout(),
      {{v1::GanMixture::LAYOUT_RING, MixtureLayout::kRing}, {v1::GanMixture::LAYOUT_GRID, MixtureLayout::kGrid}});
  if (options.layout == MixtureLayout::kGrid) options.spacing = 0.5;
  if (spec.has_spacing()) options.spacing = errors.InRangeAbove("spacing", spec.spacing(), 0, 1000);
  if (spec.has_stddev()) options.stddev = errors.InRangeAbove("stddev", spec.stddev(), 0, 1000);
  return options;
}

GanGaussianOptions ParseGaussian(const v1::GanGaussian& spec, FieldErrors& errors) {
  constexpr int kMaxDim = 4096;
  GanGaussianOptions options;
  if (spec.mean_size() > kMaxDim) {
    errors.Add("mean", absl::StrCat(spec.mean_size(), " numbers, at most ", kMaxDim, " allowed"));
  } else if (spec.mean_size() > 0) {
    options.mean.clear();
    for (int i = 0; i < spec.mean_size(); ++i) {
      options.mean.push_back(errors.InRange(absl::StrCat("mean[", i, "]"), spec.mean(i), -1e6, 1e6));
    }
  }
  if (spec.has_stddev()) options.stddev = errors.InRangeAbove("stddev", spec.stddev(), 0, 1e6);
  return options;
}

GanDataOptions ParseGanData(const v1::GanData& spec, FieldErrors& errors) {
  switch (spec.source_case()) {
    case v1::GanData::kIdx: {
      if (spec.idx().images().empty()) errors.Add("idx.images", "missing; give an IDX file of images");
      return GanIdxOptions{spec.idx().images(), spec.idx().labels()};
    }
    case v1::GanData::kCifar: {
      constexpr int kMaxFiles = 64;
      FieldErrors inner = errors.In("cifar");
      GanCifarOptions options;
      options.files.assign(spec.cifar().files().begin(), spec.cifar().files().end());
      if (options.files.empty() || spec.cifar().files_size() > kMaxFiles) {
        inner.Add("files", absl::StrCat(options.files.size(), " files not in [1, ", kMaxFiles, "]"));
      }
      if (spec.cifar().has_classes()) {
        options.classes = spec.cifar().classes();
        if (options.classes != 10 && options.classes != 100) {
          inner.Add("classes", absl::StrCat(options.classes, " is not 10 or 100"));
        }
      }
      return options;
    }
    case v1::GanData::kPng: {
      GanPngOptions options;
      options.path = spec.png().path();
      if (options.path.empty()) errors.Add("png.path", "missing; give a folder of PNG files");
      if (spec.png().has_channels()) {
        options.channels = spec.png().channels();
        if (options.channels != 1 && options.channels != 3) {
          errors.Add("png.channels", absl::StrCat(options.channels, " is not 1 or 3"));
        }
      }
      return options;
    }
    case v1::GanData::kMixture: {
      FieldErrors inner = errors.In("mixture");
      return ParseMixture(spec.mixture(), inner);
    }
    case v1::GanData::kGaussian: {
      FieldErrors inner = errors.In("gaussian");
      return ParseGaussian(spec.gaussian(), inner);
    }
    case v1::GanData::SOURCE_NOT_SET:
      break;
  }
  errors.Add("", "missing; give one of idx, cifar, png, mixture, gaussian");
  return GanMixtureOptions{};
}

GameAdamOptions ParseAdam(const v1::GameAdam& spec, GameAdamForm form, FieldErrors errors) {
  GameAdamOptions options;
  options.form = form;
  if (spec.has_lr_d()) options.lr_d = errors.InRangeAbove("lr_d", spec.lr_d(), 0, 1);
  if (spec.has_lr_g()) options.lr_g = errors.InRangeAbove("lr_g", spec.lr_g(), 0, 1);
  if (spec.has_beta1()) options.beta1 = errors.InRangeBelow("beta1", spec.beta1(), 0, 1);
  if (spec.has_beta2()) options.beta2 = errors.InRangeBelow("beta2", spec.beta2(), 0, 1);
  if (spec.has_eps()) options.eps = errors.InRangeAbove("eps", spec.eps(), 0, 1);
  return options;
}

QodaDaOptions ParseQodaDa(const v1::QodaDa& spec, FieldErrors errors) {
  QodaDaOptions options;
  options.lr_rule = Choose<v1::QodaDa::LrRule, StepRule>(
      errors, "lr_rule", spec.lr_rule(),
      {{v1::QodaDa::LR_RULE_BASE, StepRule::kBase}, {v1::QodaDa::LR_RULE_SEPARATED, StepRule::kSeparated}});
  if (spec.has_q_hat()) {
    options.q_hat = errors.InRangeAbove("q_hat", spec.q_hat(), 0, 0.25);
    if (options.lr_rule != StepRule::kSeparated) errors.Add("q_hat", "has an effect with lr_rule separated only");
  }
  if (spec.has_lr_scale()) options.lr_scale = errors.InRangeAbove("lr_scale", spec.lr_scale(), 0, 1000);
  return options;
}

GameOptimizerOptions ParseGameOptimizer(const v1::GameOptimizer& spec, FieldErrors& errors) {
  switch (spec.kind_case()) {
    case v1::GameOptimizer::kQodaDa:
      return ParseQodaDa(spec.qoda_da(), errors.In("qoda_da"));
    case v1::GameOptimizer::kExtraAdam:
      return ParseAdam(spec.extra_adam(), GameAdamForm::kExtra, errors.In("extra_adam"));
    case v1::GameOptimizer::kAdam:
      return ParseAdam(spec.adam(), GameAdamForm::kPlain, errors.In("adam"));
    case v1::GameOptimizer::kOptimisticAdam:
    case v1::GameOptimizer::KIND_NOT_SET:
      break;
  }
  return ParseAdam(spec.optimistic_adam(), GameAdamForm::kOptimistic, errors.In("optimistic_adam"));
}

void ParseEnums(const v1::QodaGanSpec& spec, QodaGanOptions& options, FieldErrors& errors) {
  options.scored = Choose<v1::QodaGanSpec::GeneratorWeights, GeneratorWeights>(
      errors, "scored", spec.scored(),
      {{v1::QodaGanSpec::GENERATOR_WEIGHTS_RAW, GeneratorWeights::kRaw},
       {v1::QodaGanSpec::GENERATOR_WEIGHTS_EMA, GeneratorWeights::kEma},
       {v1::QodaGanSpec::GENERATOR_WEIGHTS_AVERAGE, GeneratorWeights::kAverage}});
  options.nan_policy = Choose<v1::QodaGanSpec::NanPolicy, NanPolicy>(
      errors, "nan_policy", spec.nan_policy(),
      {{v1::QodaGanSpec::NAN_POLICY_FAIL, NanPolicy::kFail}, {v1::QodaGanSpec::NAN_POLICY_SKIP, NanPolicy::kSkip}});
}

// What depends on more than one field.
void CheckGanRelations(const v1::QodaGanSpec& spec, const QodaGanOptions& options, int32_t world_size,
                       FieldErrors& errors) {
  if (options.global_batch % world_size != 0) {
    errors.Add("global_batch", absl::StrCat(options.global_batch, spec.has_global_batch() ? "" : " (the default)",
                                            " is not a multiple of the ", world_size, " ranks of world.min"));
  }
  const bool has_networks = spec.networks().kind_case() != v1::GanNetworks::KIND_NOT_SET;
  const bool has_data = spec.data().source_case() != v1::GanData::SOURCE_NOT_SET;
  if (has_networks && has_data) {
    const bool takes_points = std::holds_alternative<GanMlpOptions>(options.networks);
    if (takes_points && HasImages(options.data)) {
      errors.Add("networks.mlp", "learns points; data must be mixture or gaussian");
    } else if (!takes_points && !HasImages(options.data)) {
      errors.Add("networks", "resnet32 and dcgan32 learn images; data must be idx, cifar or png");
    }
  }
  const auto* dcgan = std::get_if<Dcgan32Options>(&options.networks);
  if (dcgan != nullptr && dcgan->discriminator_norm != GanNormKind::kNone && options.gp_lambda > 0) {
    errors.Add("networks.dcgan32.discriminator_norm",
               absl::StrCat("must be none with the gradient penalty (gp_lambda ", options.gp_lambda,
                            "), which is of each sample alone; set gp_lambda: 0 to clip weights instead"));
  }
  if (spec.has_clip() && options.gp_lambda > 0) {
    errors.Add("clip", absl::StrCat("has an effect with gp_lambda 0 only, which is ", options.gp_lambda));
  }
  if (options.scored == GeneratorWeights::kAverage && !options.ergodic_average) {
    errors.Add("scored", "average needs ergodic_average: true");
  }
}

// Empty for codecs whose mean is the value itself.
const char* WhyBiased(const CodecOptions& codec) {
  if (const auto* maxmin = std::get_if<MaxminCodec>(&codec)) {
    return maxmin->rounding == Rounding::kNearest ? "maxmin with rounding nearest" : "";
  }
  if (std::holds_alternative<SignMeanCodec>(codec)) return "sign_mean";
  if (std::holds_alternative<TopKCodec>(codec)) return "top_k";
  if (std::holds_alternative<PowerSgdCodec>(codec)) return "power_sgd";
  return "";
}

}  // namespace

void CheckQodaCommunication(const QodaGanOptions& options, const CommunicationOptions& communication,
                            FieldErrors& errors) {
  if (!std::holds_alternative<QodaDaOptions>(options.optimizer)) return;
  const auto check = [&](const std::string& path, const CodecOptions& codec) {
    const absl::string_view name = WhyBiased(codec);
    if (name.empty()) return;
    errors.Add(path, absl::StrCat(name,
                                  " is biased, which optimizer qoda_da does not converge with; allowed are "
                                  "identity, levels, and maxmin with rounding stochastic"));
  };
  check("codec", communication.codec);
  for (const LayerTypeOptions& type : communication.types) {
    if (type.codec) check(absl::StrCat("types.", type.name, ".codec"), *type.codec);
  }
  if (communication.error_feedback) {
    errors.Add("error_feedback",
               "true does not go with optimizer qoda_da, whose step sizes and averages want each "
               "step's own gradients");
  }
}

bool HasImages(const GanDataOptions& data) {
  return !std::holds_alternative<GanMixtureOptions>(data) && !std::holds_alternative<GanGaussianOptions>(data);
}

QodaGanOptions ParseQodaGan(const v1::QodaGanSpec& spec, int32_t world_size, FieldErrors& errors) {
  QodaGanOptions options;
  FieldErrors networks = errors.In("networks");
  options.networks = ParseNetworks(spec.networks(), networks);
  FieldErrors data = errors.In("data");
  options.data = ParseGanData(spec.data(), data);
  FieldErrors optimizer = errors.In("optimizer");
  options.optimizer = ParseGameOptimizer(spec.optimizer(), optimizer);

  if (spec.has_updates()) options.updates = errors.InRange("updates", spec.updates(), 1, kMaxUpdates);
  const size_t before = errors.violations().size();
  if (spec.has_global_batch()) {
    options.global_batch = errors.InRange("global_batch", spec.global_batch(), 1, 1'048'576);
  }
  const bool batch_is_sound = errors.violations().size() == before;
  if (spec.has_latent_dim()) options.latent_dim = errors.InRange("latent_dim", spec.latent_dim(), 1, 4096);
  if (spec.has_gp_lambda()) options.gp_lambda = errors.InRange("gp_lambda", spec.gp_lambda(), 0, 1000);
  if (spec.has_clip()) options.clip = errors.InRangeAbove("clip", spec.clip(), 0, 100);
  if (spec.has_ema()) options.ema = errors.InRangeBelow("ema", spec.ema(), 0, 1);
  options.ergodic_average =
      spec.has_ergodic_average() ? spec.ergodic_average() : std::holds_alternative<QodaDaOptions>(options.optimizer);
  if (spec.has_evaluation_interval()) {
    options.evaluation_interval = errors.InRange("evaluation_interval", spec.evaluation_interval(), 0, kMaxUpdates);
  }
  if (spec.has_sample_interval()) {
    options.sample_interval = errors.InRange("sample_interval", spec.sample_interval(), 0, kMaxUpdates);
  }
  if (spec.has_evaluation_samples()) {
    options.evaluation_samples = errors.InRange("evaluation_samples", spec.evaluation_samples(), 64, 100'000);
  }
  if (spec.has_sample_count()) options.sample_count = errors.InRange("sample_count", spec.sample_count(), 1, 1024);
  ParseEnums(spec, options, errors);
  CheckGanRelations(spec, options, batch_is_sound ? world_size : 1, errors);
  return options;
}

}  // namespace trainyard::spec
