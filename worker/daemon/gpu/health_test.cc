#include "worker/daemon/gpu/health.h"

#include "base/testing/status_matchers.h"
#include "gtest/gtest.h"

namespace trainyard::daemon {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

GpuFacts Well() {
  GpuFacts facts;
  facts.total_bytes = int64_t{80} << 30;
  facts.used_bytes = int64_t{4} << 20;
  facts.row_remap_failed = false;
  facts.recovery_action = 0;
  return facts;
}

TEST(GpuHealthTest, NothingIsWrongWithAGpuThatAnswersAndIsFree) {
  EXPECT_EQ(WhyUnhealthy(Well(), {}, {}, true), "");
  // Older drivers and GPUs cannot tell these two.
  GpuFacts silent = Well();
  silent.row_remap_failed.reset();
  silent.recovery_action.reset();
  EXPECT_EQ(WhyUnhealthy(silent, {}, {}, true), "");
}

TEST(GpuHealthTest, NamesWhatIsWrong) {
  GpuFacts facts = Well();
  facts.error = "GPU is lost";
  EXPECT_THAT(WhyUnhealthy(facts, {}, {}, false), HasSubstr("GPU is lost"));
  facts = Well();
  facts.row_remap_failed = true;
  EXPECT_THAT(WhyUnhealthy(facts, {}, {}, false), HasSubstr("remapped"));
  facts = Well();
  facts.recovery_action = 2;
  EXPECT_THAT(WhyUnhealthy(facts, {}, {}, false), HasSubstr("reboot the host"));
}

// The XID is the cause of the silence that follows it.
TEST(GpuHealthTest, AFatalXidIsNamedBeforeTheSilenceItLeadsTo) {
  GpuFacts facts = Well();
  facts.error = "GPU is lost";
  EXPECT_EQ(WhyUnhealthy(facts, {13, 79}, {}, false), "XID 79 (the GPU has fallen off the bus) since the host's boot");
}

// CP-21: 512 MB, on the spot still tolerated.
TEST(GpuHealthTest, MemoryCountsOnlyWhereNobodyShouldUseIt) {
  GpuFacts facts = Well();
  facts.used_bytes = int64_t{512} << 20;
  EXPECT_EQ(WhyUnhealthy(facts, {}, {}, true), "");
  ++facts.used_bytes;
  EXPECT_EQ(WhyUnhealthy(facts, {}, {}, false), "");
  facts.processes = {{.pid = 41, .used_bytes = 1}, {.pid = 42, .used_bytes = 1}};
  EXPECT_EQ(WhyUnhealthy(facts, {}, {}, true),
            "512 MiB of its memory are in use while nobody should use it (512 MiB are tolerated), by process 41, 42");
  GpuPolicy generous;
  generous.memory_tolerance_bytes = int64_t{1} << 40;
  EXPECT_EQ(WhyUnhealthy(facts, {}, generous, true), "");
}

// CP-37's lists.
TEST(GpuHealthTest, XidsAreFatalNotedOrIgnored) {
  const GpuPolicy policy;
  for (const int xid : {48, 62, 64, 74, 79, 95, 119, 120}) EXPECT_EQ(ClassOfXid(xid, policy), XidClass::kFatal) << xid;
  for (const int xid : {13, 31, 43, 45, 68, 109}) EXPECT_EQ(ClassOfXid(xid, policy), XidClass::kIgnored) << xid;
  EXPECT_EQ(ClassOfXid(63, policy), XidClass::kNoted);  // a row was remapped, as it should be
  GpuPolicy strict = policy;
  strict.all_are_fatal = true;
  EXPECT_EQ(ClassOfXid(63, strict), XidClass::kFatal);
  EXPECT_EQ(ClassOfXid(31, strict), XidClass::kIgnored);
  GpuPolicy own;
  own.fatal_xids = {63};
  EXPECT_EQ(ClassOfXid(79, own), XidClass::kNoted);
  EXPECT_EQ(WhyUnhealthy(Well(), {79}, own, true), "");
  EXPECT_THAT(WhyUnhealthy(Well(), {63}, own, true), HasSubstr("XID 63"));
}

TEST(GpuHealthTest, ListsOfXidsAreParsedOrRefusedByWord) {
  bool all = false;
  ASSERT_OK_AND_ASSIGN(const std::set<int> some, ParseXids("48, 79", &all));
  EXPECT_THAT(some, ElementsAre(48, 79));
  EXPECT_FALSE(all);
  EXPECT_OK(ParseXids("all", &all));
  EXPECT_TRUE(all);
  ASSERT_OK_AND_ASSIGN(const std::set<int> none, ParseXids(""));
  EXPECT_TRUE(none.empty());
  EXPECT_THAT(ParseXids("48,x"), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("'x'")));
  EXPECT_THAT(ParseXids("0"), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("[1, 10000]")));
  EXPECT_THAT(ParseXids("48,"), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("''")));
  EXPECT_THAT(ParseXids("all"), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("'all'")));
}

}  // namespace
}  // namespace trainyard::daemon
