#include "worker/runner/link_trials.h"

#include <atomic>
#include <thread>

#include "base/testing/fake_clock.h"
#include "base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace trainyard::runner {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class LinkTrialsTest : public ::testing::Test {
 protected:
  LinkTrialsTest()
      : context(
            {}, &stop, [this](const v1::RunnerReport& report) { OnReport(report); }, &clock),
        trials(&context, &inbox, [this](const v1::RunnerReport& report) { OnReport(report); }) {
    context.EnterSection("train");
    sections.clear();
  }

  void OnReport(const v1::RunnerReport& report) {
    if (report.has_progress()) {
      sections.push_back(report.progress().section());
      for (const auto& [category, seconds] : report.progress().goodput_seconds()) goodput[category] += seconds;
      const auto& moment = report.progress().moment();
      if (!moment.empty()) {
        EXPECT_EQ(report.progress().section(), "trials");
        EXPECT_TRUE(report.progress().values().empty()) << "they would be a step of the history";
        moments.push_back({moment.at("generation_number"), moment.at("generation_trials"),
                           moment.at("generation_trials_done"), moment.at("generation_trials_failed")});
      }
    }
    if (!report.has_trials()) return;
    requests.push_back(report.trials());
    for (const v1::TrialOutcomes& answer : answers) Say(answer);
  }
  void Say(const v1::TrialOutcomes& outcomes) {
    v1::RunnerCommand command;
    *command.mutable_trial_outcomes() = outcomes;
    inbox.Put(std::move(command));
  }
  static v1::TrialGeneration Generation(int64_t number, int count) {
    v1::TrialGeneration generation;
    generation.set_number(number);
    for (int i = 0; i < count; ++i) generation.add_specs();
    return generation;
  }
  // Values are 10 * index, so that an answer in the wrong place shows.
  static v1::TrialOutcomes Outcomes(int64_t number, const std::vector<int>& indices, bool done) {
    v1::TrialOutcomes outcomes;
    outcomes.set_generation(number);
    outcomes.set_done(done);
    for (const int index : indices) {
      v1::TrialOutcome* outcome = outcomes.add_outcomes();
      outcome->set_index(index);
      outcome->set_state(index == 1 ? v1::JOB_STATE_FAILED : v1::JOB_STATE_SUCCEEDED);
      (*outcome->mutable_result()->mutable_values())["loss"] = 10 * index;
    }
    return outcomes;
  }

  FakeClock clock;
  StopFlag stop;
  Inbox inbox{&stop};
  std::vector<std::string> sections;
  std::map<std::string, double> goodput;
  std::vector<std::vector<double>> moments;  // number, trials, done, failed
  std::vector<v1::TrialGeneration> requests;
  std::vector<v1::TrialOutcomes> answers;
  RankContext context;
  LinkTrials trials;
};

// A new session brings outcomes again; an outcome of a generation that was given up comes late.
TEST_F(LinkTrialsTest, OutcomesComeInOrderAndAreToldOnce) {
  answers = {Outcomes(2, {0}, true), Outcomes(3, {2, 0}, false), Outcomes(3, {2, 0}, false),
             Outcomes(3, {0, 1, 2}, true)};
  std::vector<int> told;
  ASSERT_OK_AND_ASSIGN(const auto outcomes, trials.Run(Generation(3, 3), [&](const v1::TrialOutcome& outcome) {
    told.push_back(outcome.index());
    clock.Advance(absl::Seconds(2));
  }));
  EXPECT_THAT(told, ElementsAre(2, 0, 1));
  ASSERT_EQ(outcomes.size(), 3u);
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(outcomes[i].result().values().at("loss"), 10.0 * static_cast<double>(i));
  EXPECT_EQ(outcomes[1].state(), v1::JOB_STATE_FAILED);
  ASSERT_EQ(requests.size(), 1u);
  EXPECT_EQ(requests[0].number(), 3);
  // How far it is, once for each news: a repeat is none.
  EXPECT_THAT(moments, ElementsAre(ElementsAre(3, 3, 0, 0), ElementsAre(3, 3, 2, 0), ElementsAre(3, 3, 3, 1)));
  // The time is booked to the wait, and the section is what it was.
  EXPECT_EQ(goodput["trials_wait"], 6);
  EXPECT_EQ(goodput["productive"], 0);
  EXPECT_EQ(sections.front(), "trials");
  EXPECT_EQ(sections.back(), "train");
}

TEST_F(LinkTrialsTest, ARefusalKeepsItsCodeAndText) {
  v1::TrialOutcomes refusal;
  refusal.set_generation(1);
  refusal.set_code(static_cast<int>(absl::StatusCode::kInvalidArgument));
  refusal.set_message("specs[4]: training.steps: 0");
  answers = {refusal};
  EXPECT_THAT(trials.Run(Generation(1, 5), nullptr),
              StatusIs(absl::StatusCode::kInvalidArgument, "specs[4]: training.steps: 0"));
  EXPECT_EQ(context.section(), "train");
}

TEST_F(LinkTrialsTest, AnAnswerThatDoesNotFitIsDataLoss) {
  answers = {Outcomes(1, {0, 5}, true)};
  EXPECT_THAT(trials.Run(Generation(1, 5), nullptr), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("trial 5, of 5")));
  answers = {Outcomes(2, {0, 2}, true)};
  EXPECT_THAT(trials.Run(Generation(2, 3), nullptr),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("trial 1 has no outcome")));
}

TEST_F(LinkTrialsTest, ARequestThatNoMessageCanCarryIsRefusedHere) {
  v1::TrialGeneration generation = Generation(1, 1000);
  for (v1::JobSpec& spec : *generation.mutable_specs()) (*spec.mutable_annotations())["x"] = std::string(17000, 'x');
  EXPECT_THAT(trials.Run(generation, nullptr),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("of 1000 trials has 17")));
  EXPECT_TRUE(requests.empty());
}

// CP-35: what waits for hours is alive as long as it polls; CP-31: and it hears of a stop.
TEST_F(LinkTrialsTest, WaitingShowsSignsOfLifeAndEndsWithAStop) {
  std::atomic<int> polls{0};
  RankContext waiting(
      {}, &stop, [&](const v1::RunnerReport& report) { polls += report.progress().section() == "trials" ? 1 : 0; },
      &clock);
  LinkTrials link(&waiting, &inbox, [](const v1::RunnerReport&) {});
  absl::Status status;
  std::thread waiter([&] { status = link.Run(Generation(1, 2), nullptr).status(); });
  for (int minute = 0; minute < 3; ++minute) {
    const int before = polls;
    clock.Advance(absl::Minutes(1));
    while (polls == before) std::this_thread::yield();
  }
  stop.Request(true);
  waiter.join();
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kCancelled, HasSubstr("generation 1")));
}

}  // namespace
}  // namespace trainyard::runner
