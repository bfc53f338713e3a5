#include "client/yaml_spec.h"

#include <google/protobuf/text_format.h>
#include <google/protobuf/util/json_util.h>
#include <google/protobuf/util/message_differencer.h>

#include <random>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "base/testing/status_matchers.h"
#include "base/testing/temp_dir.h"
#include "client/pipeline.h"
#include "client/yaml_text.h"
#include "gmock/gmock.h"

namespace trainyard::client {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;
using ::testing::StartsWith;

constexpr char kGood[] = R"(name: tiny
model: {preset: llama-1m}
data:
  path: /data/english
  sequence_length: 64
training:
  steps: 100
  optimizer:
    adamw:
      learning_rate: 0.001
pretrain:
)";

std::vector<std::string> Problems(const std::string& content, const std::vector<std::string>& overrides = {},
                                  const std::string& name = "job.yaml") {
  const auto jobs = ParseJobFile(name, content, overrides);
  if (jobs.ok()) return {};
  EXPECT_EQ(jobs.status().code(), absl::StatusCode::kInvalidArgument);
  return absl::StrSplit(std::string(jobs.status().message()), '\n');
}

// `kGood` with one text replaced.
std::string With(const std::string& from, const std::string& to) {
  return absl::StrReplaceAll(kGood, {{from, to}});
}

v1::JobSpec Parse(const std::string& content, const std::vector<std::string>& overrides = {},
                  const std::string& name = "job.yaml") {
  const auto jobs = ParseJobFile(name, content, overrides);
  EXPECT_OK(jobs.status());
  return jobs.ok() ? jobs->front().spec : v1::JobSpec();
}

TEST(YamlSpec, ReadsAJob) {
  const v1::JobSpec spec = Parse(kGood);
  EXPECT_EQ(spec.name(), "tiny");
  EXPECT_EQ(spec.training().steps(), 100);
  EXPECT_EQ(spec.training().optimizer().adamw().learning_rate(), 0.001);
  EXPECT_TRUE(spec.has_pretrain());
}

// The sentence of the requirement, with line and column.
TEST(YamlSpec, AnUnknownFieldHasItsPlaceAndASuggestion) {
  EXPECT_THAT(Problems(With("learning_rate", "learnig_rate")),
              ElementsAre("job.yaml:10:7: training.optimizer.adamw.learnig_rate: unknown field, did you mean "
                          "learning_rate?"));
  EXPECT_THAT(Problems(With("path: /data", "zzz: 1\n  path: /data")),
              ElementsAre("job.yaml:4:3: data.zzz: unknown field, known are path, sequence_length, shuffle_seed, "
                          "selection, samples"));
}

TEST(YamlSpec, AllProblemsAtOnceInTheOrderOfTheFile) {
  EXPECT_THAT(Problems(R"(name: Tiny
model: {preset: llama-1m}
data:
  path: d
  path: e
  sequence_length: 0
training:
  stepz: 100
  micro_batch: many
  optimizer:
    adamw: {beta1: 1.5}
    sgd: {}
  schedule: {shape: cosin, warmup_steps: [1]}
world: 3
hang: {floor: fast}
pretrain: {}
)"),
              ElementsAre("job.yaml:1:1: name: 'Tiny' is not a name: 1 to 63 of a-z, 0-9 and '-', a letter first, "
                          "no '-' last",
                          "job.yaml:5:3: data.path: given twice, first in line 4",
                          "job.yaml:6:3: data.sequence_length: 0 not in [1, 1048576]",
                          "job.yaml:8:3: training.stepz: unknown field, did you mean steps?",
                          "job.yaml:9:3: training.micro_batch: 'many' is not a whole number",
                          "job.yaml:11:13: training.optimizer.adamw.beta1: 1.5 not in [0, 1)",
                          "job.yaml:12:5: training.optimizer.sgd: excludes adamw, given in line 11: only one kind may "
                          "be given",
                          "job.yaml:13:14: training.schedule.shape: 'cosin' is not one of constant, cosine, linear, "
                          "wsd; did you mean cosine?",
                          "job.yaml:13:28: training.schedule.warmup_steps: expected one value, got a list",
                          "job.yaml:14:1: world: expected fields, got the value '3'",
                          "job.yaml:15:8: hang.floor: 'fast' is not a duration such as 90s, 10m, 1h30m or a number "
                          "of seconds"));
}

TEST(YamlSpec, WhatIsMissingIsReportedAtTheSectionAround) {
  EXPECT_THAT(Problems(With("  steps: 100\n", "")),
              ElementsAre("job.yaml:6:1: training.steps: missing; give a value in [1, 1000000000]"));
  EXPECT_THAT(Problems(With("pretrain:\n", "")),
              ElementsAre("job.yaml:1:1: no job kind; give one of: pretrain, qat, qoda_gan, prune_search, "
                          "select_data, study"));
}

TEST(YamlSpec, ShortForms) {
  const v1::JobSpec spec = Parse(absl::StrCat(With("  optimizer:\n    adamw:\n      learning_rate: 0.001",
                                                   "  optimizer: sgd\n  linear: fp32\n  schedule: {shape: WSD}\n"
                                                   "  nan_policy: skip\n  recompute: RECOMPUTE_BLOCK"),
                                              "communication: {codec: identity, bucket_bytes: 4MiB, timeout: 90}\n"
                                              "world: {min: 2, slot_type: gpu}\n"
                                              "active_deadline: 1h30m\nstop_grace: 1.5s\nttl_after_finish: 7d\n"));
  EXPECT_TRUE(spec.training().optimizer().has_sgd());
  EXPECT_TRUE(spec.training().linear().has_fp32());
  EXPECT_EQ(spec.training().schedule().shape(), v1::Schedule::SHAPE_WSD);
  EXPECT_EQ(spec.training().nan_policy(), v1::NAN_POLICY_SKIP);
  EXPECT_EQ(spec.training().recompute(), v1::RECOMPUTE_BLOCK);
  EXPECT_TRUE(spec.communication().codec().has_identity());
  EXPECT_EQ(spec.communication().bucket_bytes(), 4 << 20);
  EXPECT_EQ(spec.communication().timeout().seconds(), 90);
  EXPECT_EQ(spec.world().slot_type(), v1::SLOT_TYPE_GPU);
  EXPECT_EQ(spec.active_deadline().seconds(), 5400);
  EXPECT_EQ(spec.stop_grace().nanos(), 500'000'000);
  EXPECT_EQ(spec.ttl_after_finish().seconds(), 7 * 86400);
  EXPECT_THAT(
      Problems(absl::StrCat(kGood, "communication: {codec: identiti}\n")),
      ElementsAre(
          "job.yaml:12:17: communication.codec: 'identiti' is not one of identity, maxmin, levels, sign_mean, top_k, "
          "power_sgd; did you mean "
          "identity?"));
}

// The names that examples and docs are written with.
TEST(YamlSpec, CommunicationAsInTheDocs) {
  const v1::CommunicationSpec spec = Parse(absl::StrCat(kGood, R"(communication:
  exchange: sra
  codec: {maxmin: {bits: 4, bucket_size: 512, rounding: stochastic}}
  types:
    embedding: {codec: {maxmin: {bits: 8}}}
    norm: {codec: identity}
    mlp: {codec: {levels: {table: adapted, norm: linf, bits: 4, refit_steps: [0, 200], refit_interval_steps: 1000}}}
    critic: {match: "discriminator.*", codec: {maxmin: {bits: 5}}}
  phase2_bits: 8
  min_elements: 1024
  plan: lgreco
  entropy_coding: huffman
  hash_check_interval_steps: 100
)"))
                                         .communication();
  EXPECT_EQ(spec.types().size(), 4u);
  EXPECT_EQ(spec.types().at("critic").match(), "discriminator.*");
  EXPECT_EQ(spec.types().at("critic").codec().maxmin().bits(), 5);
  EXPECT_TRUE(spec.types().at("norm").codec().has_identity());
  EXPECT_EQ(spec.types().at("mlp").codec().levels().refit_steps(1), 200);
  EXPECT_EQ(spec.codec().maxmin().rounding(), v1::CodecMaxmin::ROUNDING_STOCHASTIC);
  EXPECT_TRUE(spec.plan().has_lgreco());
  EXPECT_EQ(spec.entropy_coding(), v1::CommunicationSpec::ENTROPY_CODING_HUFFMAN);
  EXPECT_THAT(Problems(absl::StrCat(kGood, "communication:\n  types:\n    mlp: {codec: {maxmin: {bits: 9}}}\n")),
              ElementsAre("job.yaml:14:28: communication.types.mlp.codec.maxmin.bits: 9 not in [1, 8]"));
}

TEST(YamlSpec, WrongTypes) {
  const auto training = [](const std::string& line) { return With("steps: 100", "steps: 100\n  " + line); };
  EXPECT_THAT(Problems(training("accumulation: 2.5")),
              ElementsAre("job.yaml:8:3: training.accumulation: '2.5' is not a whole number"));
  EXPECT_THAT(Problems(training("accumulation: 99999999999")),
              ElementsAre("job.yaml:8:3: training.accumulation: 99999999999 not in [-2147483648, 2147483647]"));
  EXPECT_THAT(Problems(training("accumulation: 123456789012345678901234567890")),
              ElementsAre(HasSubstr("123456789012345678901234567890 not in [-2147483648")));
  EXPECT_THAT(Problems(training("clip_norm: .nan")), ElementsAre(HasSubstr("'.nan' is not a number")));
  EXPECT_THAT(Problems(training("clip_norm:")), ElementsAre(HasSubstr("clip_norm: expected one value, got nothing")));
  EXPECT_THAT(Problems(absl::StrCat(kGood, "suspend: yes\n")), ElementsAre(HasSubstr("'yes' is not true or false")));
  EXPECT_THAT(Problems(absl::StrCat(kGood, "seed: -1\n")),
              ElementsAre(HasSubstr("seed: -1 not in [0, 18446744073709551615]")));
  EXPECT_THAT(Problems(absl::StrCat(kGood, "labels: [a]\n")), ElementsAre(HasSubstr("expected key: value pairs")));
  EXPECT_THAT(Problems(absl::StrCat(kGood, "labels: {a: [b], c: 1, c: 2}\n")),
              ElementsAre("job.yaml:12:10: labels.a: expected one value, got a list",
                          "job.yaml:12:24: labels.c: given twice, first in line 12"));
  EXPECT_THAT(Problems(absl::StrCat(kGood, "exit_policy: {always_retry: [1, x, 300]}\n")),
              ElementsAre(HasSubstr("exit_policy.always_retry[1]: 'x' is not a whole number")));
  EXPECT_THAT(Problems("- a\n- b\n"), testing::Contains("job.yaml:1:1: expected fields, got a list"));
  EXPECT_EQ(Parse(With("steps: 100", "steps: 1e3")).training().steps(), 1000);
}

// The coordinator's complaint about an element of a list is shown at that element.
TEST(YamlSpec, RangesInListsPointAtTheElement) {
  EXPECT_THAT(Problems(absl::StrCat(kGood, "exit_policy:\n  always_retry:\n    - 1\n    - 300\n")),
              ElementsAre("job.yaml:15:7: exit_policy.always_retry[1]: 300 not in [1, 125]"));
}

TEST(YamlSpec, AnchorsAreFollowed) {
  const v1::JobSpec spec = Parse(absl::StrCat(kGood, "retry: {backoff_initial: &wait 30s, backoff_maximum: *wait}\n"));
  EXPECT_EQ(spec.retry().backoff_maximum().seconds(), 30);
}

TEST(YamlSpec, SeveralJobsInOneFile) {
  const std::string two = absl::StrCat("---\n", kGood, "---\n", With("tiny", "other"), "---\n");
  ASSERT_OK_AND_ASSIGN(const auto jobs, ParseJobFile("job.yaml", two));
  ASSERT_THAT(jobs, SizeIs(2));
  EXPECT_EQ(jobs[1].spec.name(), "other");
  EXPECT_THAT(Problems(absl::StrCat(kGood, "---\n", With("tiny", "Other"))),
              ElementsAre(StartsWith("job.yaml:13:1: name: 'Other'")));
  EXPECT_THAT(Problems(""), ElementsAre("job.yaml: no job in it"));
}

TEST(YamlSpec, OverridesReplaceAndAreNamedInErrors) {
  const v1::JobSpec spec = Parse(absl::StrCat(kGood, "exit_policy: {always_retry: [1, 2]}\nlabels: {a: x, b: y}\n"),
                                 {"training.steps=7", "training.optimizer.sgd.momentum=0.5",
                                  "exit_policy.always_retry=[9]", "name=big", "labels.a=z", "labels.team.org=nlp",
                                  "model={shape: {vocab_size: 64, hidden_size: 64, intermediate_size: "
                                  "64, num_hidden_layers: 1, num_attention_heads: 2}}"});
  EXPECT_EQ(spec.training().steps(), 7);
  EXPECT_EQ(spec.training().optimizer().sgd().momentum(), 0.5);
  EXPECT_FALSE(spec.training().optimizer().has_adamw());
  EXPECT_THAT(spec.exit_policy().always_retry(), ElementsAre(9));
  EXPECT_EQ(spec.name(), "big");
  EXPECT_EQ(spec.labels().at("a"), "z");
  EXPECT_EQ(spec.labels().at("b"), "y");
  EXPECT_EQ(spec.labels().at("team.org"), "nlp");
  EXPECT_TRUE(spec.model().has_shape());
  EXPECT_THAT(Problems(kGood, {"training.steps=0"}),
              ElementsAre("--set training.steps=0: training.steps: 0 not in [1, 1000000000]"));
  EXPECT_THAT(Problems(kGood, {"training.stesp=5"}),
              ElementsAre("--set training.stesp=5: training.stesp: unknown field, did you mean steps?"));
  EXPECT_THAT(Problems(kGood, {"training"}), ElementsAre("--set training: expected path=value"));
}

TEST(YamlSpec, Json) {
  const char json[] = R"({
	"name": "tiny", "model": {"preset": "llama-1m", "dtype": "FLOAT_TYPE_BF16"},
	"data": {"path": "d", "sequenceLength": 64},
	"training": {"steps": "100"},
	"stopGrace": "1.5s",
	"pretrain": {}
})";
  EXPECT_EQ(Parse(json, {}, "job.json").data().sequence_length(), 64);
  EXPECT_EQ(Parse(json, {}, "job.json").stop_grace().nanos(), 500'000'000);
  EXPECT_THAT(Problems(absl::StrReplaceAll(json, {{"\"100\"", "\"-1\""}}), {}, "job.json"),
              ElementsAre(HasSubstr("job.json:4:15: training.steps: -1 not in [1, 1000000000]")));
}

TEST(YamlSpec, TextProto) {
  const char text[] =
      "name: 'tiny'\nmodel { preset: 'llama-1m' }\ndata { path: 'd' sequence_length: 64 }\ntraining {\n  steps: 0\n}\n"
      "pretrain {}\nexit_policy { never_retry: [1, 200] }\n";
  EXPECT_THAT(
      Problems(text, {}, "job.textproto"),
      ElementsAre("job.textproto:5:3: training.steps: 0 not in [1, 1000000000]", StartsWith("job.textproto:8:")));
  EXPECT_THAT(Problems("name: 'x'\nfoo: 1\n", {}, "job.textproto"), testing::Contains(StartsWith("job.textproto:2:")));
}

// What ToYaml writes is what the reader reads, for every field there is.
TEST(YamlSpec, RoundTripOfEveryField) {
  v1::JobSpec spec;
  ASSERT_TRUE(google::protobuf::TextFormat::ParseFromString(R"(
    name: "full" namespace: "ns" queue: "q" priority: -5
    world { min: 2 max: 2 slots_per_worker: 2 slot_type: SLOT_TYPE_CPU threads_per_rank: 3 }
    retry { max_user_failures: 1 max_infra_failures: 2 no_progress_limit: 4
            backoff_initial { seconds: 3 nanos: 250000000 } backoff_maximum { seconds: 3599 } }
    exit_policy { always_retry: [3, 4] never_retry: [5] }
    checkpoint { interval_steps: 10 keep_last: 2 on_stop: false }
    active_deadline { seconds: 3661 } queue_deadline { seconds: 1 } ttl_after_finish { seconds: 86400 }
    stop_grace { seconds: 0 nanos: 1 } lost_after { seconds: 7 }
    hang { factor: 2.5 floor { seconds: 90 } warmup_steps: 0 }
    labels { key: "a" value: "true" } labels { key: "b.c/d" value: "1" } labels { key: "e" value: "" }
    annotations { key: "note" value: "line\n\"two\"\t\\ # \u00e4" }
    suspend: true seed: 18446744073709551615
    model { shape { vocab_size: 512 hidden_size: 64 intermediate_size: 100 num_hidden_layers: 2 num_attention_heads: 4
            num_key_value_heads: 2 head_dim: 16 rope_theta: 500000 rms_norm_eps: 1e-06 attention_bias: true
            tie_word_embeddings: true max_position_embeddings: 128 } from_scratch: true dtype: FLOAT_TYPE_BF16 }
    data { path: "a b: c" sequence_length: 128 shuffle_seed: 9 }
    training { steps: 1000 micro_batch: 2 accumulation: 3 linear { bf16 {} }
      optimizer { sgd { learning_rate: 0.1 momentum: 0.9 nesterov: true weight_decay: 0.01 } }
      schedule { shape: SHAPE_WSD warmup_steps: 10 final_fraction: 0 decay_fraction: 0.25 }
      clip_norm: 0.30000000000000004 evaluation { interval_steps: 5 batches: 6 } nan_policy: NAN_POLICY_SKIP
      alarm_z_score: 3 lm_head_chunks: 2 recompute: RECOMPUTE_BLOCK }
    communication { bucket_bytes: 4096 codec { identity {} } timeout { seconds: 5 } }
    pretrain { sample_prompts: ["- x", "null", "In the"] sample_tokens: 5 })",
                                                            &spec));
  const std::string yaml = ToYaml(spec);
  const v1::JobSpec back = Parse(yaml);
  std::string difference;
  google::protobuf::util::MessageDifferencer differencer;
  differencer.ReportDifferencesToString(&difference);
  EXPECT_TRUE(differencer.Compare(spec, back)) << difference << yaml;

  std::string json;
  ASSERT_TRUE(google::protobuf::util::MessageToJsonString(spec, &json).ok());
  EXPECT_TRUE(google::protobuf::util::MessageDifferencer::Equals(spec, Parse(json, {}, "job.json"))) << json;
}

TEST(YamlSpec, BrokenYamlHasItsPlace) {
  EXPECT_THAT(Problems("a: [1, 2\nb: 3\n"), ElementsAre(StartsWith("job.yaml:2:")));
  EXPECT_THAT(Problems("a: \"\\xZZ\"\n"), ElementsAre(HasSubstr("not valid YAML")));
  EXPECT_THAT(Problems("a: b\n]\n"), ElementsAre(StartsWith("job.yaml:2:1: not valid YAML")));
  EXPECT_THAT(Problems("a: *nowhere\n"), ElementsAre(HasSubstr("not valid YAML")));
}

// None of these may crash, hang or be taken.
TEST(YamlSpec, HostileInputIsRefused) {
  EXPECT_THAT(Problems(std::string(100'000, '[')), SizeIs(testing::Ge(1u)));
  EXPECT_THAT(Problems(std::string(100'000, '{')), SizeIs(testing::Ge(1u)));
  std::string deep;
  for (int i = 0; i < 2000; ++i) absl::StrAppend(&deep, std::string(i, ' '), "a:\n");
  EXPECT_THAT(Problems(deep), SizeIs(testing::Ge(1u)));
  EXPECT_THAT(Problems("&a [*a, *a]"), SizeIs(testing::Ge(1u)));
  EXPECT_THAT(Problems(absl::StrCat(kGood, "? [complex, key]\n: 1\n")), SizeIs(1));
  EXPECT_THAT(Problems(std::string(kMaxSpecBytes + 1, '#')), ElementsAre(HasSubstr("a job file may have 1048576")));
  std::string laughs = "a0: &a0 [x, x]\n";
  for (int i = 1; i < 40; ++i) absl::StrAppend(&laughs, "a", i, ": &a", i, " [*a", i - 1, ", *a", i - 1, "]\n");
  EXPECT_THAT(Problems(laughs), SizeIs(testing::Ge(40u)));
  EXPECT_THAT(Problems(std::string("name: a\0b\n", 10)), SizeIs(testing::Ge(1u)));
}

// Mutations of a good file: any answer but a crash.
TEST(YamlSpec, SurvivesMutations) {
  std::mt19937 random(7);
  const std::string alphabet = "{}[]:,-&*!|>'\"%@` \n\t#?a0\x80\xff";
  for (int round = 0; round < 3000; ++round) {
    std::string text = kGood;
    for (int edits = 0; edits < 4; ++edits) {
      const size_t at = random() % text.size();
      switch (random() % 3) {
        case 0:
          text[at] = alphabet[random() % alphabet.size()];
          break;
        case 1:
          text.insert(at, 1, alphabet[random() % alphabet.size()]);
          break;
        default:
          text.erase(at, 1 + random() % 5);
      }
      if (text.empty()) text = "x";
    }
    const auto jobs = ParseJobFile("job.yaml", text);
    if (!jobs.ok()) {
      EXPECT_NE(jobs.status().message(), "");
    }
  }
}

TEST(YamlSpec, AMissingFileIsNotFound) {
  EXPECT_THAT(LoadJobFile("/nonexistent/job.yaml"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("/nonexistent/job.yaml")));
}

// ---- several jobs ----

std::string JobThatWaits(const std::string& name, const std::string& wait) {
  return absl::StrCat("name: ", name, "\n", wait,
                      "\nmodel: {preset: llama-1m}\ndata: {path: d}\ntraining: {steps: 3}\npretrain:\n");
}

TEST(Pipeline, ACycleIsShownAsAWholeAndWhereItBegins) {
  const std::string file = absl::StrCat(JobThatWaits("first", ""), "---\n", JobThatWaits("a", "depends_on: [first, c]"),
                                        "---\n", JobThatWaits("b", "depends_on: [{job: a, condition: finished}]"),
                                        "---\n", JobThatWaits("c", "depends_on: [first, b]"));
  EXPECT_THAT(ParseJobFile("p.yaml", file),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       "p.yaml:9:21: depends_on[1].job: waits for itself: a -> c -> b -> a"));
}

TEST(Pipeline, ReferencesCloseCyclesToo) {
  std::string second = JobThatWaits("b", "depends_on: [a]");
  std::string first = JobThatWaits("a", "");
  first.replace(first.find("{preset: llama-1m}"), 18, "{artifact: {job: b}}");
  EXPECT_THAT(
      ParseJobFile("p.yaml", absl::StrCat(second, "---\n", first)),
      StatusIs(absl::StatusCode::kInvalidArgument, "p.yaml:2:14: depends_on[0].job: waits for itself: b -> a -> b"));
  EXPECT_THAT(
      ParseJobFile("p.yaml", absl::StrCat(first, "---\n", second)),
      StatusIs(absl::StatusCode::kInvalidArgument, "p.yaml:3:9: model.artifact: waits for itself: a -> b -> a"));
}

TEST(Pipeline, NamesMustDifferAndOthersMayBeOutside) {
  const std::string twice = absl::StrCat(JobThatWaits("a", ""), "---\n", JobThatWaits("a", ""));
  EXPECT_THAT(
      ParseJobFile("p.yaml", twice),
      StatusIs(absl::StatusCode::kInvalidArgument, "p.yaml:8:1: name: 'a' is also the name of the job at p.yaml:1:1"));
  ASSERT_OK_AND_ASSIGN(const auto jobs, ParseJobFile("p.yaml", JobThatWaits("a", "depends_on: [x-1, {job: y}]")));
  EXPECT_EQ(DependenciesText(jobs[0].spec), "x-1 and y");
  EXPECT_EQ(jobs[0].spec.depends_on(0).job(), "x-1");
}

}  // namespace
}  // namespace trainyard::client
