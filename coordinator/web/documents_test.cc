// What a page gets is JSON whatever a job's user wrote, and no more than it shows.
#include "coordinator/web/documents.h"

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "base/check.h"
#include "coordinator/web/json_text.h"
#include "gmock/gmock.h"
#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"

namespace trainyard::coordinator {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using Json = nlohmann::json;

v1::Job JobOf(const std::string& text) {
  v1::Job job;
  TY_CHECK(google::protobuf::TextFormat::ParseFromString(text, &job));
  return job;
}

TEST(JsonStringTest, IsReadBackWhateverTheBytes) {
  for (const std::string& text :
       {std::string("plain"), std::string("\"quoted\" \\ \n\r\t\x01\x7F"), std::string("</script><b>&amp;"),
        std::string("h\xC3\xA9llo \xF0\x9F\x9A\x82 \xE2\x80\xA8"), std::string(1, '\0') + "zero"}) {
    EXPECT_EQ(Json::parse(JsonString(text)).get<std::string>(), text);
  }
  EXPECT_THAT(JsonString("</script>"), Not(HasSubstr("<")));
}

TEST(JsonStringTest, ReplacesWhatIsNoUtf8) {
  // A lone continuation, an overlong slash, a surrogate, a cut character, a value above U+10FFFF.
  for (const std::string& bad :
       std::vector<std::string>{"\x80", "\xC0\xAF", "\xED\xA0\x80", "\xE2\x82", "\xF4\x90\x80\x80"}) {
    const std::string read = Json::parse(JsonString("a" + bad + "b")).get<std::string>();
    EXPECT_THAT(read, ::testing::StartsWith("a\xEF\xBF\xBD"));
    EXPECT_EQ(read.back(), 'b');
  }
}

TEST(JsonNumberTest, HasNoWordsForInfinity) {
  EXPECT_EQ(JsonNumber(0.1), "0.1");
  EXPECT_EQ(JsonNumber(std::nan("")), "null");
  EXPECT_EQ(JsonNumber(-std::numeric_limits<double>::infinity()), "null");
}

TEST(DocumentsTest, ARowKeepsWhatItShows) {
  v1::Job job = JobOf(R"(
    uid: "u" name: "<img src=x onerror=alert(1)>" kind: "pretrain" state: JOB_STATE_RUNNING etag: "7"
    spec { world { max: 4 } seed: 9 labels { key: "secret" value: "x" } training { steps: 10 } }
    attempts { number: 1 } attempts { number: 2 places { worker_id: "w" } exit { last_log_lines: "line" } }
    generations { number: 1 } generations { number: 2 total_count: 3 }
    progress { step: 5 total_steps: 10 values { key: "loss" value: 2.5 } values { key: "bits_mlp" value: 4 } }
    result { documents { key: "report" value: "large" } samples: "text" values { key: "final_loss" value: 1 } })");
  TrimForRow(&job);
  const Json row = Json::parse(JobJson(job));
  EXPECT_EQ(row["name"], "<img src=x onerror=alert(1)>");
  EXPECT_EQ(row["spec"], Json::parse(R"({"world": {"max": 4}})"));
  ASSERT_EQ(row["attempts"].size(), 1u);
  EXPECT_EQ(row["attempts"][0]["number"], 2);
  EXPECT_FALSE(row["attempts"][0].contains("places"));
  ASSERT_EQ(row["generations"].size(), 1u);
  EXPECT_EQ(row["generations"][0]["number"], "2");
  EXPECT_EQ(row["progress"]["values"], Json::parse(R"({"loss": 2.5})"));
  EXPECT_EQ(row["progress"]["step"], "5");
  EXPECT_EQ(row["result"], Json::parse(R"({"values": {"final_loss": 1}})"));
}

TEST(DocumentsTest, APageKeepsNamesOfDocumentsOnly) {
  v1::Job job = JobOf(R"(uid: "u" spec { seed: 9 } result { documents { key: "report" value: "large" } })");
  TrimForPage(&job);
  const Json page = Json::parse(JobPageJson(12, job));
  EXPECT_EQ(page["revision"], "12");
  EXPECT_EQ(page["job"]["result"]["documents"], Json::parse(R"({"report": ""})"));
  EXPECT_EQ(page["job"]["spec"]["seed"], "9");
  v1::Job without = JobOf(R"(uid: "u")");
  TrimForPage(&without);
  EXPECT_FALSE(Json::parse(JobPageJson(1, without))["job"].contains("result"));
}

TEST(DocumentsTest, MetricsAreColumnsOfEqualLength) {
  std::vector<v1::MetricPoint> points(3);
  for (int i = 0; i < 3; ++i) {
    points[i].set_step(10 * i);
    points[i].set_attempt(i < 2 ? 1 : 2);
    points[i].mutable_time()->set_seconds(100 + i);
    (*points[i].mutable_values())["loss"] = i == 1 ? std::nan("") : 3.0 - i;
  }
  (*points[2].mutable_values())["evaluation_loss"] = 1.5;
  const Json all = Json::parse(MetricsJson(points, {}));
  EXPECT_EQ(all["names"], Json::parse(R"(["evaluation_loss", "loss"])"));
  EXPECT_EQ(all["steps"], Json::parse("[0, 10, 20]"));
  EXPECT_EQ(all["attempts"], Json::parse("[1, 1, 2]"));
  EXPECT_EQ(all["times"], Json::parse("[100000, 101000, 102000]"));
  EXPECT_EQ(all["values"]["loss"], Json::parse("[3, null, 1]"));
  EXPECT_EQ(all["values"]["evaluation_loss"], Json::parse("[null, null, 1.5]"));
  const Json one = Json::parse(MetricsJson(points, {"loss", "unknown"}));
  EXPECT_EQ(one["values"].size(), 1u);
  EXPECT_EQ(one["names"].size(), 2u);
  EXPECT_EQ(Json::parse(MetricsJson({}, {}))["steps"], Json::array());
}

TEST(DocumentsTest, WorkersInTroubleComeFirst) {
  v1::ListWorkersResponse all;
  const auto add = [&](const std::string& id, v1::WorkerState state, v1::SlotState slot) {
    v1::WorkerInfo& worker = *all.add_workers();
    worker.set_worker_id(id);
    worker.set_state(state);
    worker.add_slots()->set_state(slot);
  };
  add("a", v1::WORKER_STATE_READY, v1::SLOT_STATE_FREE);
  add("d", v1::WORKER_STATE_READY, v1::SLOT_STATE_UNHEALTHY);
  add("c", v1::WORKER_STATE_LOST, v1::SLOT_STATE_UNREACHABLE);
  add("b", v1::WORKER_STATE_READY, v1::SLOT_STATE_BUSY);
  const auto ids = [&](size_t offset, size_t limit) {
    std::string text;
    const Json page = Json::parse(WorkersJson(1, all, offset, limit));
    EXPECT_EQ(page["total"], 4);
    for (const Json& worker : page["workers"]) text += worker["workerId"].get<std::string>();
    return text;
  };
  EXPECT_EQ(ids(0, 10), "cdab");
  EXPECT_EQ(ids(1, 2), "da");
  EXPECT_EQ(ids(9, 2), "");
}

TEST(DocumentsTest, OverviewCountsByName) {
  OverviewView view;
  view.revision = 5;
  view.jobs[v1::JOB_STATE_RUNNING] = 2;
  view.jobs[v1::JOB_STATE_FAILED] = 0;
  view.pending[v1::PendingReason::CODE_BEHIND_OTHERS] = 1;
  view.slots[{v1::SLOT_TYPE_CPU, v1::SLOT_STATE_FREE}] = 3;
  v1::ServerInfo info;
  info.set_version("1.2 \"x\"");
  info.mutable_start_time()->set_seconds(60);
  const Json overview = Json::parse(OverviewJson(view, info));
  EXPECT_EQ(overview["jobs"], Json::parse(R"({"RUNNING": 2})"));
  EXPECT_EQ(overview["pending"], Json::parse(R"({"BEHIND_OTHERS": 1})"));
  EXPECT_EQ(overview["slots"], Json::parse(R"({"CPU": {"FREE": 3}})"));
  EXPECT_EQ(overview["startTime"], "1970-01-01T00:01:00Z");
  EXPECT_EQ(overview["version"], "1.2 \"x\"");
}

TEST(DocumentsTest, LogsAreBytes) {
  LogTail tail{.size = 10, .has_ended = true, .frames = {}, .next_offset = 10};
  tail.frames.emplace_back().set_data("\xFF\n");
  tail.frames.back().set_offset(8);
  const Json json = Json::parse(LogJson(tail));
  EXPECT_EQ(json["frames"][0]["data"], "/wo=");
  EXPECT_EQ(json["nextOffset"], "10");
  EXPECT_EQ(json["ended"], true);
}

TEST(DocumentsTest, ErrorsHaveACodeAndTheirWords) {
  const Json error = Json::parse(ErrorJson(absl::NotFoundError("no \"job\" <x>")));
  EXPECT_EQ(error["error"]["code"], "NOT_FOUND");
  EXPECT_EQ(error["error"]["message"], "no \"job\" <x>");
  EXPECT_EQ(HttpStatusOf(absl::NotFoundError("")), 404);
  EXPECT_EQ(HttpStatusOf(absl::InvalidArgumentError("")), 400);
  EXPECT_EQ(HttpStatusOf(absl::ResourceExhaustedError("")), 503);
  EXPECT_EQ(HttpStatusOf(absl::DataLossError("")), 500);
}

}  // namespace
}  // namespace trainyard::coordinator
