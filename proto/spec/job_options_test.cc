#include "proto/spec/job_options.h"

#include <google/protobuf/text_format.h>

#include <cmath>
#include <limits>
#include <utility>

#include "absl/strings/str_format.h"
#include "base/check.h"
#include "base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "proto/rpc/error_details.h"
#include "proto/v1/job.pb.h"

namespace trainyard::spec {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::UnorderedElementsAre;

constexpr char kSmallest[] = R"(
  model { preset: "llama-1m" } data { path: "d" sequence_length: 64 } training { steps: 10 } pretrain {} )";

v1::JobSpec Spec(const std::string& more = "") {
  v1::JobSpec spec;
  TY_CHECK(google::protobuf::TextFormat::ParseFromString(kSmallest, &spec));
  v1::JobSpec changes;
  TY_CHECK(google::protobuf::TextFormat::ParseFromString(more, &changes));
  spec.MergeFrom(changes);
  return spec;
}

// "path: text" of each problem.
std::vector<std::string> Problems(const v1::JobSpec& spec) {
  std::vector<std::string> lines;
  for (const auto& violation : GetFieldViolations(ParseJob(spec).status())) {
    lines.push_back(violation.path + ": " + violation.text);
  }
  return lines;
}
std::vector<std::string> Problems(const std::string& more) {
  return Problems(Spec(more));
}

TEST(ParseJob, EveryKindTakesGpuSlots) {
  const auto takes_gpus = [](v1::JobSpec spec) {
    spec.mutable_world()->set_slot_type(v1::SLOT_TYPE_GPU);
    EXPECT_THAT(Problems(spec), Not(Contains(HasSubstr("world.slot_type"))));
  };
  v1::JobSpec spec = Spec();
  takes_gpus(spec);
  spec.mutable_qat();
  takes_gpus(spec);
  spec.mutable_study();
  takes_gpus(spec);
  spec.mutable_qoda_gan();
  takes_gpus(spec);
  spec.mutable_prune_search();
  takes_gpus(spec);
  spec.mutable_select_data();
  takes_gpus(spec);
  EXPECT_THAT(Problems("world { slot_type: SLOT_TYPE_GPU }"), IsEmpty());
}

TEST(ParseJob, TheSmallestSpecGetsTheDocumentedDefaults) {
  ASSERT_OK_AND_ASSIGN(const JobOptions job, ParseJob(Spec()));
  EXPECT_EQ(job.name, "");
  EXPECT_EQ(job.name_space, "default");
  EXPECT_EQ(job.queue, "default");
  EXPECT_EQ(job.world.min, 1);
  EXPECT_EQ(job.world.max, 1);
  EXPECT_FALSE(job.world.slots_per_worker.has_value());
  EXPECT_EQ(job.world.slot_type, SlotType::kCpu);
  EXPECT_EQ(job.retry.max_user_failures, 0);
  EXPECT_FALSE(job.retry.max_infra_failures.has_value());
  EXPECT_EQ(job.retry.no_progress_limit, 3);
  EXPECT_EQ(job.retry.backoff_initial, absl::Seconds(10));
  EXPECT_EQ(job.retry.backoff_maximum, absl::Seconds(600));
  EXPECT_THAT(job.exit_policy.always_retry, ElementsAre(75));
  EXPECT_THAT(job.exit_policy.never_retry, ElementsAre(64, 65, 78));
  EXPECT_EQ(job.checkpoint.interval, absl::Seconds(600));
  EXPECT_FALSE(job.checkpoint.interval_steps.has_value());
  EXPECT_EQ(job.checkpoint.keep_last, 3);
  EXPECT_TRUE(job.checkpoint.on_stop);
  EXPECT_EQ(job.active_deadline, absl::InfiniteDuration());
  EXPECT_EQ(job.queue_deadline, absl::InfiniteDuration());
  EXPECT_EQ(job.ttl_after_finish, absl::Hours(168));
  EXPECT_EQ(job.stop_grace, absl::Seconds(60));
  EXPECT_EQ(job.lost_after, absl::ZeroDuration());
  EXPECT_EQ(job.hang.factor, 5);
  EXPECT_EQ(job.hang.floor, absl::Seconds(60));
  EXPECT_EQ(job.hang.warmup_steps, 5);
  EXPECT_FALSE(job.suspend);
  EXPECT_FALSE(job.seed.has_value());
  EXPECT_EQ(job.model.dtype, FloatType::kFp32);
  EXPECT_EQ(ShapeOf(job.model)->hidden_size, 128);
  EXPECT_TRUE(std::holds_alternative<LinearFp32>(job.training.linear.scheme));
  EXPECT_EQ(std::get<AdamWOptions>(job.training.optimizer).beta2, 0.95);
  EXPECT_EQ(job.training.schedule.shape, ScheduleShape::kCosine);
  EXPECT_EQ(job.training.clip_norm, 1.0);
  EXPECT_TRUE(std::holds_alternative<IdentityCodec>(job.communication.codec));
  EXPECT_EQ(std::get<PretrainOptions>(job.kind).samples.tokens, 64);
}

TEST(ParseJob, AnEmptySpecNamesAllThatIsMissing) {
  EXPECT_THAT(
      Problems(v1::JobSpec()),
      ElementsAre("model: missing; give one of model.preset, model.path, model.shape, model.artifact",
                  "data.path: missing; give a folder made by 'trainyard data tokenize', or selection or samples "
                  "instead",
                  "training.steps: missing; give a value in [1, 1000000000]",
                  ": no job kind; give one of: pretrain, qat, qoda_gan, prune_search, select_data, study"));
}

TEST(ParseJob, AllProblemsComeAtOnceInTextAndAsList) {
  const v1::JobSpec spec = Spec(R"(priority: 2000 training { optimizer { adamw { learning_rate: -1 beta1: 1 } } })");
  EXPECT_THAT(ParseJob(spec), StatusIs(absl::StatusCode::kInvalidArgument,
                                       "priority: 2000 not in [-1000, 1000]; "
                                       "training.optimizer.adamw.learning_rate: -1 not in (0, 10]; "
                                       "training.optimizer.adamw.beta1: 1 not in [0, 1)"));
  EXPECT_THAT(Problems(spec), testing::SizeIs(3));
}

// Each range at both ends: `inside` is taken, `outside` is refused at `path`, and nothing else is complained about.
struct Range {
  const char* path;
  const char* format;  // textproto with one %s
  std::vector<const char*> inside;
  std::vector<const char*> outside;
};

std::string Fill(const char* format, const char* value) {
  std::string text = format;
  return text.replace(text.find("%s"), 2, value);
}

class RangeTest : public ::testing::TestWithParam<Range> {};

TEST_P(RangeTest, EndsAreInclusiveAsDocumented) {
  const Range& range = GetParam();
  for (const char* value : range.inside) {
    EXPECT_THAT(Problems(Fill(range.format, value)), IsEmpty()) << range.path << " = " << value;
  }
  for (const char* value : range.outside) {
    EXPECT_THAT(Problems(Fill(range.format, value)), ElementsAre(testing::StartsWith(std::string(range.path) + ": ")))
        << range.path << " = " << value;
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, RangeTest,
    ::testing::Values(
        Range{"priority", "priority: %s", {"-1000", "1000"}, {"-1001", "1001"}},
        Range{"world.min", "world { min: %s }", {"1", "100000"}, {"0", "-5", "100001"}},
        Range{"world.max", "world { max: %s }", {"1", "100000"}, {"0", "100001"}},
        Range{"world.slots_per_worker", "world { slots_per_worker: %s }", {"1", "64"}, {"0", "65"}},
        Range{"world.threads_per_rank", "world { threads_per_rank: %s }", {"1", "1024"}, {"0", "1025"}},
        Range{"retry.max_user_failures", "retry { max_user_failures: %s }", {"0", "1000000"}, {"-1", "1000001"}},
        Range{"retry.max_infra_failures", "retry { max_infra_failures: %s }", {"0", "1000000"}, {"-1", "1000001"}},
        Range{"retry.no_progress_limit", "retry { no_progress_limit: %s }", {"0", "1000000"}, {"-1", "1000001"}},
        Range{"retry.backoff_initial",
              "retry { backoff_initial { %s } }",
              {"seconds: 1", "seconds: 600"},
              {"nanos: 999999999", "seconds: 601", "seconds: 3601", "seconds: -1"}},
        Range{"retry.backoff_maximum",
              "retry { backoff_maximum { %s } }",
              {"seconds: 10", "seconds: 3600"},
              {"seconds: 9", "seconds: 0", "seconds: 3600 nanos: 1"}},
        Range{"exit_policy.always_retry[0]", "exit_policy { always_retry: %s }", {"1", "125", "64"}, {"0", "126"}},
        Range{"exit_policy.never_retry[0]", "exit_policy { never_retry: %s }", {"1", "125", "75"}, {"0", "126"}},
        Range{"checkpoint.interval_seconds", "checkpoint { interval_seconds: %s }", {"1", "604800"}, {"0", "604801"}},
        Range{"checkpoint.interval_steps", "checkpoint { interval_steps: %s }", {"1", "1000000000"}, {"0", "-1"}},
        Range{"checkpoint.keep_last", "checkpoint { keep_last: %s }", {"1", "1000"}, {"0", "1001"}},
        Range{"active_deadline",
              "active_deadline { %s }",
              {"seconds: 1", "seconds: 315360000"},
              {"seconds: 0", "seconds: 315360001", "seconds: 1 nanos: -1", "seconds: 5 nanos: 1000000000"}},
        Range{"queue_deadline", "queue_deadline { %s }", {"seconds: 1"}, {"nanos: 5"}},
        Range{"ttl_after_finish", "ttl_after_finish { %s }", {"seconds: 1"}, {"seconds: 0"}},
        Range{"stop_grace", "stop_grace { %s }", {"seconds: 0", "seconds: 3600"}, {"nanos: -1", "seconds: 3601"}},
        Range{"lost_after", "lost_after { %s }", {"seconds: 0", "seconds: 3600"}, {"nanos: -1", "seconds: 3601"}},
        Range{"hang.factor", "hang { factor: %s }", {"2", "1000"}, {"1.99", "1001", "nan"}},
        Range{"hang.floor", "hang { floor { seconds: %s } }", {"1", "86400"}, {"0", "86401"}},
        Range{"hang.warmup_steps", "hang { warmup_steps: %s }", {"0", "1000000"}, {"-1", "1000001"}}));

INSTANTIATE_TEST_SUITE_P(
    Training, RangeTest,
    ::testing::Values(
        Range{"data.sequence_length", "data { sequence_length: %s }", {"1", "2048"}, {"0", "1048577", "2049"}},
        Range{"training.steps", "training { steps: %s }", {"1", "1000000000"}, {"0", "-1", "1000000001"}},
        Range{"training.micro_batch", "training { micro_batch: %s }", {"1", "65536"}, {"0", "65537"}},
        Range{"training.accumulation", "training { accumulation: %s }", {"1", "65536"}, {"0", "65537"}},
        Range{"training.optimizer.adamw.learning_rate",
              "training { optimizer { adamw { learning_rate: %s } } }",
              {"1e-300", "10"},
              {"0", "10.1", "nan", "inf", "-1"}},
        Range{"training.optimizer.adamw.beta1",
              "training { optimizer { adamw { beta1: %s } } }",
              {"0", "0.999999"},
              {"-0.1", "1", "nan"}},
        Range{"training.optimizer.adamw.beta2",
              "training { optimizer { adamw { beta2: %s } } }",
              {"0", "0.999999"},
              {"-0.1", "1"}},
        Range{"training.optimizer.adamw.epsilon",
              "training { optimizer { adamw { epsilon: %s } } }",
              {"1e-12", "1"},
              {"0", "1.1"}},
        Range{"training.optimizer.adamw.weight_decay",
              "training { optimizer { adamw { weight_decay: %s } } }",
              {"0", "10"},
              {"-0.1", "10.1"}},
        Range{"training.optimizer.sgd.learning_rate",
              "training { optimizer { sgd { learning_rate: %s } } }",
              {"1e-9", "100"},
              {"0", "101"}},
        Range{"training.optimizer.sgd.momentum",
              "training { optimizer { sgd { momentum: %s } } }",
              {"0", "0.99"},
              {"-1", "1"}},
        Range{"training.optimizer.sgd.nesterov",
              "training { optimizer { sgd { nesterov: true momentum: %s } } }",
              {"0.5"},
              {"0"}},
        Range{
            "training.schedule.warmup_steps", "training { schedule { warmup_steps: %s } }", {"0", "10"}, {"-1", "11"}},
        Range{"training.schedule.final_fraction",
              "training { schedule { final_fraction: %s } }",
              {"0", "1"},
              {"-0.1", "1.1"}},
        Range{"training.schedule.decay_fraction",
              "training { schedule { shape: SHAPE_WSD decay_fraction: %s } }",
              {"0.001", "1"},
              {"1.5", "nan"}},
        Range{"training.clip_norm", "training { clip_norm: %s }", {"0", "1e6"}, {"-1", "1.1e6", "nan"}},
        Range{"training.evaluation.interval_steps",
              "training { evaluation { interval_steps: %s } }",
              {"0", "1000000000"},
              {"-1", "1000000001"}},
        Range{"training.evaluation.batches",
              "training { evaluation { batches: %s } }",
              {"1", "1000000"},
              {"0", "1000001"}},
        Range{"training.alarm_z_score", "training { alarm_z_score: %s }", {"0", "1000"}, {"-1", "1001"}},
        Range{"training.lm_head_chunks", "training { lm_head_chunks: %s }", {"1", "256"}, {"0", "1025", "3"}},
        Range{"communication.bucket_bytes",
              "communication { bucket_bytes: %s }",
              {"1024", "1073741824"},
              {"1023", "1073741825"}},
        Range{"communication.codec.maxmin.bits",
              "communication { codec { maxmin { bits: %s } } }",
              {"1", "8"},
              {"0", "9", "-1", "32"}},
        Range{"communication.codec.maxmin.bucket_size",
              "communication { codec { maxmin { bucket_size: %s } } }",
              {"64", "8192", "72"},
              {"56", "8200", "100"}},
        Range{"communication.codec.levels.bits",
              "communication { codec { levels { bits: %s } } }",
              {"2", "8"},
              {"1", "9"}},
        Range{"communication.codec.levels.bucket_size",
              "communication { codec { levels { bucket_size: %s } } }",
              {"64", "8192"},
              {"63", "8193"}},
        Range{"communication.codec.levels.refit_steps[1]",
              "communication { codec { levels { refit_steps: 5 refit_steps: %s } } }",
              {"6", "1000000000"},
              {"5", "4", "1000000001"}},
        Range{"communication.codec.levels.refit_interval_steps",
              "communication { codec { levels { refit_interval_steps: %s } } }",
              {"1", "1000000000"},
              {"0", "1000000001"}},
        Range{"communication.codec.sign_mean.bucket_size",
              "communication { error_feedback: true codec { sign_mean { bucket_size: %s } } }",
              {"64", "8192"},
              {"0", "8193"}},
        Range{"communication.codec.top_k.density",
              "communication { error_feedback: true codec { top_k { density: %s } } }",
              {"0.001", "0.5"},
              {"0", "0.51", "nan"}},
        Range{"communication.codec.power_sgd.rank",
              "communication { codec { power_sgd { rank: %s } } }",
              {"1", "64"},
              {"0", "65"}},
        Range{"communication.codec.power_sgd.start_step",
              "communication { codec { power_sgd { start_step: %s } } }",
              {"0", "1000000000"},
              {"-1", "1000000001"}},
        Range{"communication.codec.power_sgd.min_compression",
              "communication { codec { power_sgd { min_compression: %s } } }",
              {"1", "1000"},
              {"0.9", "1001"}},
        Range{"communication.types.embedding.codec.maxmin.bits",
              "communication { types { key: \"embedding\" value { codec { maxmin { bits: %s } } } } }",
              {"1", "8"},
              {"0", "9"}},
        Range{
            "communication.phase2_bits", "communication { phase2_bits: %s }", {"2", "8", "32"}, {"1", "9", "16", "31"}},
        Range{"communication.min_elements",
              "communication { min_elements: %s }",
              {"16", "1000000000"},
              {"15", "1000000001"}},
        Range{"communication.hash_check_interval_steps",
              "communication { hash_check_interval_steps: %s }",
              {"0", "1000000000"},
              {"-1", "1000000001"}},
        Range{"communication.plan.lgreco.alpha",
              "communication { codec { maxmin { } } plan { lgreco { alpha: %s } } }",
              {"0.1", "10"},
              {"0", "10.1"}},
        Range{"communication.plan.lgreco.interval_steps",
              "communication { codec { maxmin { } } plan { lgreco { interval_steps: %s } } }",
              {"1", "1000000000"},
              {"0", "1000000001"}},
        Range{"communication.plan.lgreco.window_steps",
              "communication { codec { maxmin { } } plan { lgreco { window_steps: %s } } }",
              {"1", "1000"},
              {"0", "1001"}},
        Range{"communication.plan.lgreco.bits_max",
              "communication { codec { maxmin { bits: 2 } } plan { lgreco { bits_max: %s } } }",
              {"2", "8"},
              {"1", "9"}},
        Range{"communication.timeout", "communication { timeout { seconds: %s } }", {"1", "3600"}, {"0", "3601"}},
        Range{"pretrain.sample_tokens", "pretrain { sample_tokens: %s }", {"1", "4096"}, {"0", "4097"}},
        Range{"pretrain.sample_prompts[0]", "pretrain { sample_prompts: \"%s\" }", {"x"}, {""}}));

std::vector<std::string> CommunicationProblems(const std::string& text) {
  return Problems(Spec("communication { " + text + " }"));
}

TEST(ParseJob, CommunicationDefaultsAndAll) {
  const CommunicationOptions defaults = ParseJob(Spec(""))->communication;
  EXPECT_EQ(defaults.exchange, ExchangeKind::kSra);
  EXPECT_EQ(defaults.phase2_bits, 8);
  EXPECT_EQ(defaults.min_elements, 1024);
  EXPECT_EQ(defaults.hash_check_interval_steps, 100);
  EXPECT_FALSE(defaults.error_feedback);
  EXPECT_FALSE(defaults.plan.has_value());
  EXPECT_EQ(defaults.entropy_coding, EntropyCoding::kNone);
  const CommunicationOptions all = ParseJob(Spec(R"(communication {
        exchange: EXCHANGE_RING entropy_coding: ENTROPY_CODING_HUFFMAN error_feedback: true plan { lgreco { } }
        codec { maxmin { bits: 3 rounding: ROUNDING_NEAREST } }
        types { key: "norm" value { codec { identity { } } } }
        types { key: "critic" value { match: "discriminator.*" } }
        types { key: "attention" value { codec { levels { table: TABLE_EXPONENTIAL norm: NORM_L2 bits: 5 } } } } })"))
                                       ->communication;
  EXPECT_EQ(all.exchange, ExchangeKind::kRing);
  EXPECT_EQ(std::get<MaxminCodec>(all.codec), (MaxminCodec{3, 512, Rounding::kNearest}));
  ASSERT_EQ(all.types.size(), 3u);  // by name
  EXPECT_EQ(all.types[0].name, "attention");
  EXPECT_EQ(std::get<LevelsCodec>(*all.types[0].codec).norm, LevelNorm::kL2);
  EXPECT_EQ(all.types[1].match, "discriminator.*");
  EXPECT_FALSE(all.types[1].codec.has_value());
  EXPECT_EQ(std::get<IdentityCodec>(*all.types[2].codec), IdentityCodec());
  EXPECT_NE(all.Fingerprint(), defaults.Fingerprint());
  EXPECT_TRUE(ParseJob(Spec("communication { codec { power_sgd { } } }"))->communication.error_feedback);
}

// Each combination that would train badly or not at all is refused where it was written.
TEST(ParseJob, CommunicationRelations) {
  const auto refused = [](const std::string& text, const std::string& path) {
    EXPECT_THAT(CommunicationProblems(text), ElementsAre(testing::StartsWith("communication." + path + ": "))) << text;
  };
  refused("codec { maxmin { rounding: ROUNDING_NEAREST } }", "codec");
  refused("codec { sign_mean { } }", "codec");
  refused("types { key: 'mlp' value { codec { top_k { } } } }", "types.mlp.codec");
  refused("error_feedback: true codec { maxmin { bits: 1 } }", "codec");
  refused("error_feedback: true", "error_feedback");
  refused("plan { lgreco { } } codec { levels { } }", "plan");
  refused("plan { lgreco { bits_min: 5 bits_max: 4 } } codec { maxmin { bits: 5 } }", "plan.lgreco.bits_min");
  refused("plan { lgreco { bits_min: 5 } } codec { maxmin { } }", "codec");
  refused("plan { lgreco { } } codec { maxmin { bits: 9 } }", "codec.maxmin.bits");  // and no word of what stands in
  refused("plan { lgreco { interval_steps: 5 window_steps: 6 } } codec { maxmin { } }", "plan.lgreco.window_steps");
  refused("entropy_coding: ENTROPY_CODING_HUFFMAN", "entropy_coding");
  refused("exchange: EXCHANGE_RING phase2_bits: 8", "phase2_bits");
  refused("exchange: EXCHANGE_SRA codec { power_sgd { } }", "exchange");
  refused("error_feedback: false codec { power_sgd { } }", "error_feedback");
  refused("codec { power_sgd { } } types { key: 'mlp' value { codec { identity { } } } }", "types");
  refused("types { key: 'mlp' value { codec { power_sgd { } } } }", "types.mlp.codec");
  refused("types { key: 'mlp' value { match: 'x' codec { identity { } } } }", "types.mlp.match");
  refused("types { key: 'mlp' value { } }", "types.mlp.codec");
  refused("types { key: 'mine' value { codec { identity { } } } }", "types.mine.match");
  refused("types { key: 'a-b' value { match: '*' } }", "types.a-b");
  refused("codec { levels { table: TABLE_UNIFORM refit_steps: 3 } }", "codec.levels.refit_steps");
}

v1::JobSpec ShapeSpec(const std::string& changes) {
  v1::JobSpec spec = Spec(
      "model { shape { vocab_size: 512 hidden_size: 64 intermediate_size: 128 num_hidden_layers: 2 "
      "num_attention_heads: 4 } }");
  spec.MergeFrom(Spec(Fill("model { shape { %s } }", changes.c_str())));
  return spec;
}

TEST(ParseJob, ShapeRangesAndRelations) {
  const std::vector<Range> ranges = {
      {"model.shape.vocab_size", "vocab_size: %s", {"2", "16777216"}, {"1", "16777217"}},
      {"model.shape.hidden_size", "hidden_size: %s", {"8", "4096"}, {"1", "65537", "66", "4", "65536"}},
      {"model.shape.intermediate_size", "intermediate_size: %s", {"1", "1048576"}, {"0", "1048577"}},
      {"model.shape.num_hidden_layers", "num_hidden_layers: %s", {"1", "1024"}, {"0", "1025"}},
      {"model.shape.num_attention_heads", "num_attention_heads: %s", {"1", "32"}, {"0", "1025"}},
      {"model.shape.num_key_value_heads", "num_key_value_heads: %s", {"1", "2", "4"}, {"0", "3", "8"}},
      {"model.shape.head_dim", "head_dim: %s", {"2", "1024"}, {"0", "1026", "3"}},
      {"model.shape.rope_theta", "rope_theta: %s", {"1", "1e12"}, {"0.5", "1.1e12"}},
      {"model.shape.rms_norm_eps", "rms_norm_eps: %s", {"1e-12", "0.1"}, {"0", "0.2"}},
      {"model.shape.max_position_embeddings", "max_position_embeddings: %s", {"64", "16777216"}, {"0", "16777217"}},
  };
  for (const Range& range : ranges) {
    for (const char* value : range.inside) {
      EXPECT_THAT(Problems(ShapeSpec(Fill(range.format, value))), IsEmpty()) << range.path << value;
    }
    for (const char* value : range.outside) {
      EXPECT_THAT(Problems(ShapeSpec(Fill(range.format, value))),
                  testing::Contains(testing::StartsWith(std::string(range.path) + ": ")))
          << range.path << " = " << value;
    }
  }
}

TEST(ParseJob, HeadSizeFollowsFromHiddenSizeUnlessGiven) {
  ASSERT_OK_AND_ASSIGN(JobOptions job, ParseJob(ShapeSpec("")));
  EXPECT_EQ(ShapeOf(job.model)->head_dim, 16);
  EXPECT_EQ(ShapeOf(job.model)->num_key_value_heads, 4);
  ASSERT_OK_AND_ASSIGN(job, ParseJob(ShapeSpec("hidden_size: 66 head_dim: 32")));
  EXPECT_EQ(ShapeOf(job.model)->head_dim, 32);
}

// Refused at submit, not by the worker: the shape is in the spec.
TEST(ParseJob, SizesThatTheLinearSchemeDoesNotDefine) {
  const auto problems = [](const std::string& training) {
    v1::JobSpec spec = ShapeSpec("intermediate_size: 96");
    spec.mutable_data()->set_sequence_length(24);
    spec.mutable_training()->set_micro_batch(1);
    EXPECT_TRUE(google::protobuf::TextFormat::MergeFromString(training, spec.mutable_training()));
    return Problems(spec);
  };
  EXPECT_THAT(
      problems("linear { quest { hadamard_dim: 64 } }"),
      testing::Contains(HasSubstr("training.linear.quest: needs the inputs of down to be a multiple of 64, which "
                                  "96 is not")));
  EXPECT_THAT(problems("linear { quest { hadamard_dim: 64 } exclude: '*.down' }"),
              testing::Not(testing::Contains(HasSubstr("needs"))));
  EXPECT_THAT(problems("linear { quartet {} }"),
              testing::Contains(HasSubstr("needs micro_batch * sequence_length = 1 * 24 to be a multiple of 32")));
}

TEST(ParseJob, SizesThatTheCodesOfEcoDoNotFit) {
  const auto problems = [](const std::string& shape, const std::string& eco) {
    v1::JobSpec spec = ShapeSpec(shape);
    EXPECT_TRUE(
        google::protobuf::TextFormat::MergeFromString("optimizer { eco { " + eco + " } }", spec.mutable_training()));
    return Problems(spec);
  };
  const std::string shape = "intermediate_size: 95";
  EXPECT_THAT(problems(shape, ""), IsEmpty());  // rows of any length
  EXPECT_THAT(
      problems(shape, "scale_granularity: SCALE_GRANULARITY_GROUP32"),
      ElementsAre("training.optimizer.eco.scale_granularity: groups of 32 do not divide the inputs of down, 95"));
  EXPECT_THAT(problems(shape, "weight_format: WEIGHT_FORMAT_INT4 scale_granularity: SCALE_GRANULARITY_ROW"),
              ElementsAre("training.optimizer.eco.weight_format: int4 needs the inputs of down to be even, which 95 is "
                          "not"));
  EXPECT_THAT(problems(shape, "scale_granularity: SCALE_GRANULARITY_GROUP32 quantize: '*.qkv.weight'"), IsEmpty());
  EXPECT_THAT(problems(shape, "quantize: 'embedding.weight'"),
              ElementsAre("training.optimizer.eco.quantize: no pattern matches a matrix of a block"));
}

TEST(ParseJob, RelationsNameBothSides) {
  EXPECT_THAT(Problems("world { min: 2 max: 4 }"),
              ElementsAre("world.max: 4 differs from world.min 2: jobs that change their size are not supported yet"));
  EXPECT_THAT(Problems("world { min: 4 max: 2 }"), ElementsAre("world.max: 2 is smaller than world.min 4"));
  EXPECT_THAT(Problems("exit_policy { always_retry: [3, 7] never_retry: [7, 4] }"),
              ElementsAre("exit_policy.never_retry[0]: 7 is also in exit_policy.always_retry"));
  EXPECT_THAT(Problems("exit_policy { always_retry: [3, 3] }"),
              ElementsAre("exit_policy.always_retry[1]: 3 is in the list twice"));
  EXPECT_THAT(Problems("model { dtype: FLOAT_TYPE_BF16 } training { linear { fp32 {} } }"),
              ElementsAre("training.linear: fp32 needs model.dtype fp32, which is bf16"));
  EXPECT_THAT(Problems("training { linear { bf16 {} } }"), IsEmpty());  // operands rounded, storage not
  EXPECT_THAT(Problems("training { optimizer { elsa { interval: 11 } } }"),
              testing::Contains("training.optimizer.elsa.interval: 11 is more than training.steps 10"));
  EXPECT_THAT(Problems("training { schedule { shape: SHAPE_CONSTANT final_fraction: 0.5 } }"),
              ElementsAre("training.schedule.final_fraction: has no effect with shape constant"));
  EXPECT_THAT(Problems("training { schedule { decay_fraction: 0.5 } }"),
              ElementsAre("training.schedule.decay_fraction: has an effect with shape wsd only"));
  EXPECT_THAT(Problems("training { schedule { shape: SHAPE_WSD decay_fraction: 0.5 warmup_steps: 6 } }"),
              ElementsAre("training.schedule.decay_fraction: 0.5 of 10 steps is 5, which overlaps warmup_steps 6"));
  EXPECT_THAT(Problems("model { from_scratch: false }"), ElementsAre(HasSubstr("model.from_scratch: false needs")));
  EXPECT_THAT(Problems("model { preset: 'llama-2m' }"),
              ElementsAre(HasSubstr("model.preset: 'llama-2m' is not one of llama-1m, llama-5m")));
  EXPECT_THAT(Problems("training { lm_head_chunks: 3 }"),
              ElementsAre("training.lm_head_chunks: 3 does not divide micro_batch * sequence_length = 4 * 64"));
  v1::JobSpec spec = ShapeSpec("max_position_embeddings: 512");
  spec.mutable_data()->clear_sequence_length();
  EXPECT_THAT(Problems(spec), ElementsAre("data.sequence_length: 1024 (the default) is longer than the model's "
                                          "max_position_embeddings 512"));
}

// A code that the user moves to the other list must not collide with a default that he never saw.
TEST(ParseJob, ShardNeedsAnOptimizerAndAnExchangeThatGoWithIt) {
  ASSERT_OK_AND_ASSIGN(const JobOptions plain, ParseJob(Spec()));
  EXPECT_EQ(plain.training.shard, Shard::kNone);
  ASSERT_OK_AND_ASSIGN(const JobOptions zero1, ParseJob(Spec("training { shard: SHARD_ZERO1 }")));
  EXPECT_EQ(zero1.training.shard, Shard::kZero1);
  ASSERT_OK_AND_ASSIGN(const JobOptions grads, ParseJob(Spec("training { shard: SHARD_GRADS optimizer { sgd {} } } "
                                                             "communication { codec { identity {} } }")));
  EXPECT_EQ(grads.training.shard, Shard::kGrads);

  const char kOptimizer[] = "training.shard: %s is for adamw and sgd";
  for (const char* optimizer : {"trion {}", "dct_adamw {}", "eco {}", "elsa {}"}) {
    for (const auto& [shard, name] : {std::pair{"SHARD_ZERO1", "zero1"}, {"SHARD_GRADS", "grads"}}) {
      EXPECT_THAT(Problems(absl::StrFormat("training { shard: %s optimizer { %s } }", shard, optimizer)),
                  Contains(HasSubstr(absl::StrFormat(kOptimizer, name))));
      EXPECT_THAT(Problems(absl::StrFormat("training { shard: SHARD_NONE optimizer { %s } }", optimizer)),
                  Not(Contains(HasSubstr("training.shard"))));
    }
  }
  for (const char* codec :
       {"codec { maxmin {} }", "codec { power_sgd {} }", "types { key: 'mlp' value { codec { top_k {} } } }"}) {
    EXPECT_THAT(Problems(absl::StrFormat("training { shard: SHARD_GRADS } communication { %s }", codec)),
                Contains(HasSubstr("training.shard: grads needs communication.codec identity")));
    EXPECT_THAT(Problems(absl::StrFormat("training { shard: SHARD_ZERO1 } communication { %s }", codec)),
                Not(Contains(HasSubstr("training.shard"))));
  }
  v1::JobSpec selection = Spec("training { shard: SHARD_ZERO1 }");
  selection.mutable_select_data();
  EXPECT_THAT(Problems(selection), Contains(HasSubstr("training.shard: zero1 has no effect")));
}

TEST(ParseJob, OffloadNeedsADeviceAndWhatCouldLiveElsewhere) {
  constexpr char kOnGpu[] = "world { slot_type: SLOT_TYPE_GPU } model { dtype: FLOAT_TYPE_BF16 } %s";
  const auto gpu_problems = [&](const std::string& more) { return Problems(absl::StrFormat(kOnGpu, more)); };
  EXPECT_FALSE(ParseJob(Spec())->training.offload.any());
  ASSERT_OK_AND_ASSIGN(
      const JobOptions all,
      ParseJob(Spec(absl::StrFormat(kOnGpu,
                                    "training { recompute: RECOMPUTE_BLOCK shard: SHARD_ZERO1 "
                                    "offload: [OFFLOAD_MOMENTS, OFFLOAD_MASTER, OFFLOAD_RESIDUALS] }"))));
  EXPECT_TRUE(all.training.offload.moments && all.training.offload.master && all.training.offload.residuals);
  EXPECT_THAT(gpu_problems("training { offload: OFFLOAD_MOMENTS optimizer { sgd {} } }"), IsEmpty());
  EXPECT_THAT(gpu_problems("training { offload: OFFLOAD_RESIDUALS recompute: RECOMPUTE_BLOCK optimizer { eco {} } }"),
              IsEmpty());

  EXPECT_THAT(Problems("training { offload: OFFLOAD_MOMENTS }"),
              ElementsAre(HasSubstr("training.offload: needs world.slot_type gpu")));
  EXPECT_THAT(Problems("world { slot_type: SLOT_TYPE_GPU } training { offload: OFFLOAD_MASTER }"),
              ElementsAre(HasSubstr("training.offload: master needs model.dtype bf16")));
  EXPECT_THAT(gpu_problems("training { offload: OFFLOAD_RESIDUALS }"),
              ElementsAre(HasSubstr("training.offload: residuals needs training.recompute block")));
  EXPECT_THAT(gpu_problems("training { offload: OFFLOAD_MOMENTS optimizer { sgd { momentum: 0 } } }"),
              ElementsAre(HasSubstr("training.offload: moments has no effect")));
  EXPECT_THAT(gpu_problems("training { offload: [OFFLOAD_MASTER, OFFLOAD_MOMENTS, OFFLOAD_MASTER] }"),
              ElementsAre("training.offload[2]: is in the list twice"));
  EXPECT_THAT(
      gpu_problems("training { offload: OFFLOAD_UNSPECIFIED }"),
      ElementsAre(HasSubstr("training.offload[0]: 0 is not a known choice; give moments, master or residuals")));
  for (const char* optimizer : {"trion {}", "dct_adamw {}", "eco {}", "elsa {}"}) {
    for (const auto& [offload, name] : {std::pair{"OFFLOAD_MOMENTS", "moments"}, {"OFFLOAD_MASTER", "master"}}) {
      EXPECT_THAT(gpu_problems(absl::StrFormat("training { offload: %s optimizer { %s } }", offload, optimizer)),
                  Contains(HasSubstr(absl::StrFormat("training.offload: %s is for adamw and sgd", name))));
    }
  }
  v1::JobSpec search = Spec("world { slot_type: SLOT_TYPE_GPU } training { offload: OFFLOAD_MOMENTS }");
  search.mutable_prune_search();
  EXPECT_THAT(Problems(search), Contains(HasSubstr("training.offload: is for pretrain, qat and study")));
}

TEST(ParseJob, AListedExitCodeLeavesTheOtherDefault) {
  ASSERT_OK_AND_ASSIGN(JobOptions job, ParseJob(Spec("exit_policy { always_retry: 65 }")));
  EXPECT_THAT(job.exit_policy.never_retry, ElementsAre(64, 78));
  ASSERT_OK_AND_ASSIGN(job, ParseJob(Spec("exit_policy { never_retry: 75 }")));
  EXPECT_THAT(job.exit_policy.always_retry, IsEmpty());
}

TEST(ParseJob, NamesAreRfc1035Labels) {
  for (const char* name : {"a", "job-1", "a-b-c"}) EXPECT_TRUE(IsLabel(name)) << name;
  EXPECT_TRUE(IsLabel(std::string(63, 'a')));
  for (const char* name : {"", "1a", "-a", "a-", "A", "a_b", "a.b", "\xc3\xa4"}) EXPECT_FALSE(IsLabel(name)) << name;
  EXPECT_FALSE(IsLabel(std::string(64, 'a')));
  EXPECT_THAT(
      Problems("name: 'Bad' namespace: 'x_' queue: '9'"),
      ElementsAre(HasSubstr("name: 'Bad' is not a name"), HasSubstr("namespace: 'x_'"), HasSubstr("queue: '9'")));
}

TEST(ParseJob, LabelsAreBounded) {
  v1::JobSpec spec = Spec();
  for (int i = 0; i < 64; ++i) (*spec.mutable_labels())["k" + std::to_string(i)] = std::string(63, 'v');
  EXPECT_THAT(Problems(spec), IsEmpty());
  (*spec.mutable_labels())["k64"] = "";
  EXPECT_THAT(Problems(spec), ElementsAre("labels: 65 entries, at most 64 allowed"));
  EXPECT_THAT(
      Problems("labels { key: 'a b' value: '' } labels { key: 'c' value: '" + std::string(64, 'v') + "' }"),
      UnorderedElementsAre(HasSubstr("labels: key 'a b'"), "labels.c: value has 64 characters, at most 63 allowed"));
  EXPECT_THAT(Problems("annotations { key: 'n' value: '" + std::string(4096, 'v') + "' }"), IsEmpty());
}

TEST(ParseJob, OneOfTheTwoWorldSizesSetsBoth) {
  ASSERT_OK_AND_ASSIGN(JobOptions job, ParseJob(Spec("world { min: 3 }")));
  EXPECT_EQ(job.world.max, 3);
  ASSERT_OK_AND_ASSIGN(job, ParseJob(Spec("world { max: 5 }")));
  EXPECT_EQ(job.world.min, 5);
}

TEST(ParseJob, LinearFollowsTheStorageType) {
  ASSERT_OK_AND_ASSIGN(const JobOptions job, ParseJob(Spec("model { dtype: FLOAT_TYPE_BF16 }")));
  EXPECT_TRUE(std::holds_alternative<LinearBf16>(job.training.linear.scheme));
}

TEST(ParseJob, AnEnumValueFromANewerClientIsRefused) {
  v1::JobSpec spec = Spec();
  spec.mutable_world()->set_slot_type(static_cast<v1::SlotType>(77));
  spec.mutable_training()->mutable_schedule()->set_shape(static_cast<v1::Schedule::Shape>(78));
  EXPECT_THAT(Problems(spec), ElementsAre("world.slot_type: 77 is not a known type",
                                          "training.schedule.shape: 78 is not a known choice"));
}

TEST(Digest, MutableFieldsDoNotCountForTheSpecButDoForTheRequest) {
  const v1::JobSpec spec = Spec("seed: 1");
  const v1::JobSpec moved = Spec("seed: 1 priority: 5 queue: 'q' suspend: true labels { key: 'a' value: 'b' }");
  EXPECT_EQ(SpecDigest(spec), SpecDigest(moved));
  EXPECT_NE(RequestDigest(spec), RequestDigest(moved));
  EXPECT_NE(SpecDigest(spec), SpecDigest(Spec("seed: 2")));
  EXPECT_EQ(SpecDigest(spec).size(), 32u);
}

// Protobuf's maps have no order of their own.
TEST(Digest, DoesNotDependOnTheOrderOfInsertion) {
  v1::JobSpec forward = Spec();
  v1::JobSpec backward = Spec();
  for (int i = 0; i < 50; ++i) {
    (*forward.mutable_labels())["k" + std::to_string(i)] = "v";
    (*backward.mutable_labels())["k" + std::to_string(49 - i)] = "v";
  }
  EXPECT_EQ(RequestDigest(forward), RequestDigest(backward));
}

TEST(GeneratedName, IsALabelForEveryKind) {
  const google::protobuf::OneofDescriptor* kinds = v1::JobSpec::descriptor()->FindOneofByName("kind");
  for (int i = 0; i < kinds->field_count(); ++i) {
    v1::JobSpec spec;
    v1::JobSpec::GetReflection()->MutableMessage(&spec, kinds->field(i));
    const std::string name = GeneratedName(spec, "27554854");
    EXPECT_TRUE(IsLabel(name)) << name;
  }
}

TEST(KindName, IsTheFieldsName) {
  EXPECT_EQ(KindName(Spec()), "pretrain");
  EXPECT_EQ(KindName(v1::JobSpec()), "");
}

// The name promises a size: within 15 % of it. The last two columns of a wrong row would go unseen otherwise.
TEST(ModelPresets, HaveTheParametersThatTheirNamesSay) {
  const std::vector<std::pair<const char*, double>> published = {
      {"llama-1m", 1e6},       {"llama-5m", 5e6},         {"llama-25m", 25e6},       {"llama-124m", 124e6},
      {"llama-1b", 1.236e9},   {"llama-3b", 3.213e9},     {"llama-7b", 6.738e9},     {"llama-8b", 8.030e9},
      {"llama-13b", 13.016e9}, {"qwen2.5-0.5b", 0.494e9}, {"qwen2.5-1.5b", 1.544e9}, {"qwen2.5-3b", 3.086e9},
      {"qwen2.5-7b", 7.616e9},
  };
  EXPECT_EQ(published.size(), ModelPresetNames().size());
  for (const auto& [name, count] : published) {
    ASSERT_TRUE(FindModelPreset(name).has_value()) << name;
    const LlamaShape shape = *FindModelPreset(name);
    const double tolerance = count < 2e8 ? 0.07 : 0.001;
    EXPECT_NEAR(static_cast<double>(ParameterCount(shape)) / count, 1.0, tolerance) << name;
    EXPECT_EQ(shape.num_attention_heads % shape.num_key_value_heads, 0) << name;
    v1::JobSpec spec = Spec();
    spec.mutable_model()->set_preset(name);
    EXPECT_OK(ParseJob(spec));
  }
  int64_t previous = 0;
  for (const std::string& name : ModelPresetNames()) {
    EXPECT_GT(ParameterCount(*FindModelPreset(name)), previous) << name;
    previous = ParameterCount(*FindModelPreset(name));
  }
  EXPECT_FALSE(FindModelPreset("llama").has_value());
}

}  // namespace
}  // namespace trainyard::spec
