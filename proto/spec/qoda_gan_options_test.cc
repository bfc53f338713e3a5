#include "proto/spec/qoda_gan_options.h"

#include <google/protobuf/text_format.h>

#include "base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/spec/job_options.h"
#include "proto/v1/job.pb.h"

namespace trainyard::spec {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

absl::StatusOr<JobOptions> Parse(const std::string& text) {
  v1::JobSpec spec;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &spec)) << text;
  return ParseJob(spec);
}

// A job over a mixture with `more` in its kind and `around` beside it.
absl::StatusOr<JobOptions> ParseMixture(const std::string& more, const std::string& around = "") {
  return Parse("qoda_gan { networks { mlp {} } data { mixture {} } " + more + " } " + around);
}

const QodaGanOptions& KindOf(const JobOptions& options) {
  return std::get<QodaGanOptions>(options.kind);
}

void ExpectRefused(const absl::StatusOr<JobOptions>& options, const std::string& text) {
  EXPECT_THAT(options, StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(text)));
}

// The table of methods/qoda.md, section 3.
TEST(QodaGanOptions, DefaultsAreThoseOfTheMethod) {
  ASSERT_OK_AND_ASSIGN(const JobOptions job,
                       Parse("qoda_gan { networks { resnet32 {} } data { cifar { files: 'a.bin' } } }"));
  const QodaGanOptions& options = KindOf(job);
  EXPECT_EQ(std::get<Resnet32Options>(options.networks).filters, 128);
  EXPECT_EQ(std::get<Resnet32Options>(options.networks).generator_norm, GanNormKind::kGroup);
  const auto& adam = std::get<GameAdamOptions>(options.optimizer);
  EXPECT_EQ(adam.form, GameAdamForm::kOptimistic);
  EXPECT_EQ(adam.lr_d, 5e-4);
  EXPECT_EQ(adam.lr_g, 5e-5);
  EXPECT_EQ(adam.beta1, 0.5);
  EXPECT_EQ(adam.beta2, 0.9);
  EXPECT_EQ(adam.eps, 1e-8);
  EXPECT_EQ(options.updates, 500000);
  EXPECT_EQ(options.global_batch, 1024);
  EXPECT_EQ(options.latent_dim, 128);
  EXPECT_EQ(options.gp_lambda, 10);
  EXPECT_EQ(options.clip, 0.01);
  EXPECT_EQ(options.ema, 0.9999);
  EXPECT_FALSE(options.ergodic_average);
  EXPECT_EQ(options.scored, GeneratorWeights::kRaw);
  EXPECT_EQ(options.nan_policy, NanPolicy::kFail);
}

TEST(QodaGanOptions, DualAveragingKeepsTheErgodicAverageUnlessToldNotTo) {
  ASSERT_OK_AND_ASSIGN(const JobOptions job, ParseMixture("optimizer { qoda_da {} }"));
  EXPECT_TRUE(KindOf(job).ergodic_average);
  const auto& qoda = std::get<QodaDaOptions>(KindOf(job).optimizer);
  EXPECT_EQ(qoda.lr_rule, StepRule::kBase);
  EXPECT_EQ(qoda.q_hat, 0.25);
  EXPECT_EQ(qoda.lr_scale, 1.0);
  ASSERT_OK_AND_ASSIGN(const JobOptions without, ParseMixture("optimizer { qoda_da {} } ergodic_average: false"));
  EXPECT_FALSE(KindOf(without).ergodic_average);
}

TEST(QodaGanOptions, EveryFieldIsRead) {
  ASSERT_OK_AND_ASSIGN(const JobOptions job, Parse(R"(qoda_gan {
        networks { dcgan32 { filters: 32 generator_norm: GAN_NORM_BATCH discriminator_norm: GAN_NORM_GROUP } }
        data { png { path: "faces" channels: 1 } }
        optimizer { extra_adam { lr_d: 2e-4 lr_g: 2e-5 beta1: 0 beta2: 0.99 eps: 1e-6 } }
        updates: 7 global_batch: 30 latent_dim: 16 gp_lambda: 0 clip: 0.05 ema: 0 ergodic_average: true
        scored: GENERATOR_WEIGHTS_AVERAGE evaluation_interval: 0 sample_interval: 5 evaluation_samples: 64
        sample_count: 9 nan_policy: NAN_POLICY_SKIP })"));
  const QodaGanOptions& options = KindOf(job);
  const auto& dcgan = std::get<Dcgan32Options>(options.networks);
  EXPECT_EQ(dcgan.filters, 32);
  EXPECT_EQ(dcgan.generator_norm, GanNormKind::kBatch);
  EXPECT_EQ(dcgan.discriminator_norm, GanNormKind::kGroup);
  EXPECT_EQ(std::get<GanPngOptions>(options.data).path, "faces");
  EXPECT_EQ(std::get<GanPngOptions>(options.data).channels, 1);
  const auto& adam = std::get<GameAdamOptions>(options.optimizer);
  EXPECT_EQ(adam.form, GameAdamForm::kExtra);
  EXPECT_EQ(adam.lr_d, 2e-4);
  EXPECT_EQ(adam.lr_g, 2e-5);
  EXPECT_EQ(adam.beta1, 0);
  EXPECT_EQ(adam.beta2, 0.99);
  EXPECT_EQ(adam.eps, 1e-6);
  EXPECT_EQ(options.updates, 7);
  EXPECT_EQ(TotalSteps(job), 7);
  EXPECT_EQ(options.global_batch, 30);
  EXPECT_EQ(options.latent_dim, 16);
  EXPECT_EQ(options.gp_lambda, 0);
  EXPECT_EQ(options.clip, 0.05);
  EXPECT_EQ(options.ema, 0);
  EXPECT_EQ(options.scored, GeneratorWeights::kAverage);
  EXPECT_EQ(options.evaluation_interval, 0);
  EXPECT_EQ(options.sample_interval, 5);
  EXPECT_EQ(options.evaluation_samples, 64);
  EXPECT_EQ(options.sample_count, 9);
  EXPECT_EQ(options.nan_policy, NanPolicy::kSkip);

  ASSERT_OK_AND_ASSIGN(
      const JobOptions grid,
      Parse("qoda_gan { networks { mlp { hidden: 5 layers: 2 } } data { mixture { layout: LAYOUT_GRID } } "
            "optimizer { qoda_da { lr_rule: LR_RULE_SEPARATED q_hat: 0.1 lr_scale: 2 } } }"));
  EXPECT_EQ(std::get<GanMlpOptions>(KindOf(grid).networks).hidden, 5);
  EXPECT_EQ(std::get<GanMlpOptions>(KindOf(grid).networks).layers, 2);
  EXPECT_EQ(std::get<GanMixtureOptions>(KindOf(grid).data).spacing, 0.5);
  EXPECT_EQ(std::get<QodaDaOptions>(KindOf(grid).optimizer).q_hat, 0.1);
  ASSERT_OK_AND_ASSIGN(const JobOptions gaussian,
                       Parse("qoda_gan { networks { mlp {} } data { gaussian { mean: 1 mean: -2 stddev: 3 } } }"));
  EXPECT_THAT(std::get<GanGaussianOptions>(KindOf(gaussian).data).mean, ::testing::ElementsAre(1, -2));
}

TEST(QodaGanOptions, ValuesOutOfRangeAreNamedWithPathAndRange) {
  const auto wrong = ParseMixture(
      "updates: 0 latent_dim: 5000 gp_lambda: -1 ema: 1 evaluation_samples: 3 sample_count: 0 "
      "optimizer { qoda_da { lr_rule: LR_RULE_SEPARATED q_hat: 0.3 lr_scale: 0 } }");
  for (const char* text :
       {"qoda_gan.updates: 0 not in [1, 1000000000]", "qoda_gan.latent_dim: 5000 not in [1, 4096]",
        "qoda_gan.gp_lambda: -1 not in [0, 1000]", "qoda_gan.ema: 1 not in [0, 1)",
        "qoda_gan.evaluation_samples: 3 not in [64, 100000]", "qoda_gan.sample_count: 0 not in [1, 1024]",
        "qoda_gan.optimizer.qoda_da.q_hat: 0.3 not in (0, 0.25]",
        "qoda_gan.optimizer.qoda_da.lr_scale: 0 not in (0, 1000]"}) {
    ExpectRefused(wrong, text);
  }
  const auto adam = ParseMixture("optimizer { optimistic_adam { lr_d: 0 beta1: 1 beta2: -0.1 } }");
  ExpectRefused(adam, "qoda_gan.optimizer.optimistic_adam.lr_d: 0 not in (0, 1]");
  ExpectRefused(adam, "qoda_gan.optimizer.optimistic_adam.beta1: 1 not in [0, 1)");
  ExpectRefused(adam, "qoda_gan.optimizer.optimistic_adam.beta2: -0.1 not in [0, 1)");
  ExpectRefused(Parse("qoda_gan { networks { mlp { layers: 17 hidden: 0 } } data { mixture { stddev: 0 } } }"),
                "qoda_gan.networks.mlp.layers: 17 not in [1, 16]");
  ExpectRefused(Parse("qoda_gan { networks { dcgan32 {} } data { cifar { files: 'a' classes: 20 } } }"),
                "qoda_gan.data.cifar.classes: 20 is not 10 or 100");
}

TEST(QodaGanOptions, NetworksAndDataMustBeGivenAndFit) {
  const auto nothing = Parse("qoda_gan {}");
  ExpectRefused(nothing, "qoda_gan.networks: missing; give one of resnet32, dcgan32, mlp");
  ExpectRefused(nothing, "qoda_gan.data: missing; give one of idx, cifar, png, mixture, gaussian");
  ExpectRefused(Parse("qoda_gan { networks { mlp {} } data { idx { images: 'a' } } }"),
                "qoda_gan.networks.mlp: learns points");
  ExpectRefused(Parse("qoda_gan { networks { resnet32 {} } data { gaussian {} } }"),
                "qoda_gan.networks: resnet32 and dcgan32 learn images");
  ExpectRefused(Parse("qoda_gan { networks { dcgan32 {} } data { idx {} } }"), "qoda_gan.data.idx.images: missing");
}

TEST(QodaGanOptions, SectionsOfLanguageModelsAreRefused) {
  const auto wrong = ParseMixture("", "model { preset: 'llama-1m' } data { path: 'x' } training { steps: 5 }");
  ExpectRefused(wrong,
                "model: a section of the kinds that have a language model; a qoda_gan job has qoda_gan.networks");
  ExpectRefused(wrong, "data: a section of the kinds");
  ExpectRefused(wrong, "training: a section of the kinds");
}

TEST(QodaGanOptions, TheBatchMustDivideAmongTheRanks) {
  EXPECT_OK(ParseMixture("global_batch: 30", "world { min: 3 }"));
  ExpectRefused(ParseMixture("global_batch: 32", "world { min: 3 }"),
                "qoda_gan.global_batch: 32 is not a multiple of the 3 ranks");
}

TEST(QodaGanOptions, PenaltyExcludesNormsInTheCriticAndClipping) {
  const std::string head =
      "qoda_gan { networks { dcgan32 { discriminator_norm: GAN_NORM_BATCH } } "
      "data { idx { images: 'a' } } ";
  ExpectRefused(Parse(head + "}"),
                "qoda_gan.networks.dcgan32.discriminator_norm: must be none with the gradient penalty");
  EXPECT_OK(Parse(head + "gp_lambda: 0 }"));
  ExpectRefused(ParseMixture("clip: 0.02"), "qoda_gan.clip: has an effect with gp_lambda 0 only");
  ExpectRefused(ParseMixture("scored: GENERATOR_WEIGHTS_AVERAGE"), "qoda_gan.scored: average needs ergodic_average");
  ExpectRefused(ParseMixture("optimizer { qoda_da { q_hat: 0.1 } }"),
                "q_hat: has an effect with lr_rule separated only");
}

// methods/qoda.md, 4: unbiasedness is what the theory rests on.
TEST(QodaGanOptions, DualAveragingRefusesBiasedCommunication) {
  const std::string qoda = "optimizer { qoda_da {} }";
  EXPECT_OK(ParseMixture(qoda, "communication { codec { maxmin { bits: 2 } } }"));
  EXPECT_OK(ParseMixture(qoda, "communication { codec { levels {} } }"));
  for (const char* codec : {"maxmin { rounding: ROUNDING_NEAREST }", "sign_mean {}", "top_k {}", "power_sgd {}"}) {
    const std::string section = "communication { error_feedback: true codec { " + std::string(codec) + " } }";
    const auto refused = ParseMixture(qoda, section);
    ExpectRefused(refused, "communication.codec: ");
    ExpectRefused(refused, "is biased, which optimizer qoda_da does not converge with");
    ExpectRefused(refused, "communication.error_feedback: true does not go with optimizer qoda_da");
    const auto allowed = ParseMixture("", section);
    EXPECT_TRUE(allowed.ok()) << allowed.status();
  }
  ExpectRefused(ParseMixture(qoda,
                             "communication { error_feedback: true types { key: 'conv' value { codec { sign_mean "
                             "{} } } } }"),
                "communication.types.conv.codec: sign_mean is biased");
}

}  // namespace
}  // namespace trainyard::spec
