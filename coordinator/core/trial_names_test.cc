#include "coordinator/core/trial_names.h"

#include <set>

#include "gtest/gtest.h"
#include "proto/spec/job_options.h"

namespace trainyard::coordinator {
namespace {

TEST(TrialNamesTest, UidsAreFormedLikeAnyOtherAndSortByIndex) {
  std::set<std::string> uids;
  std::string last;
  for (int index = 0; index < 1000; ++index) {
    const std::string uid = TrialUid("parent", 7, index);
    EXPECT_EQ(uid.size(), 36u);
    EXPECT_LT(last, uid);
    last = uid;
    uids.insert(uid);
  }
  EXPECT_EQ(uids.size(), 1000u);
  EXPECT_EQ(TrialUid("parent", 7, 3), TrialUid("parent", 7, 3));
  EXPECT_NE(TrialUid("parent", 7, 3), TrialUid("parent", 8, 3));
  EXPECT_NE(TrialUid("parent", 7, 3), TrialUid("other", 7, 3));
}

TEST(TrialNamesTest, SeedsDifferInEveryArgumentAndFitASignedField) {
  std::set<uint64_t> seeds;
  for (uint64_t parent = 0; parent < 10; ++parent) {
    for (int generation = 1; generation <= 10; ++generation) {
      for (int index = 0; index < 10; ++index) {
        const uint64_t seed = TrialSeed(parent, generation, index);
        EXPECT_LT(seed, uint64_t{1} << 63);
        seeds.insert(seed);
      }
    }
  }
  EXPECT_EQ(seeds.size(), 1000u);  // (generation + 1, index) and (generation, index + 1) differ too
}

TEST(TrialNamesTest, NamesAreLabelsHoweverLongTheParents) {
  EXPECT_EQ(TrialName("search", "u", 3, 17, false), "search-g3-17");
  const std::string taken = TrialName("search", "u", 3, 17, true);
  EXPECT_NE(taken, "search-g3-17");
  EXPECT_TRUE(spec::IsLabel(taken));
  // Cut at a hyphen, and two long names that begin alike.
  for (const std::string& parent :
       {std::string(63, 'a'), std::string(40, 'a') + std::string(10, '-') + "bcdefghijklmn"}) {
    const std::string name = TrialName(parent, "u", 1'000'000, 9999, false);
    EXPECT_TRUE(spec::IsLabel(name)) << name;
    EXPECT_NE(name, TrialName(parent, "v", 1'000'000, 9999, false));
  }
}

}  // namespace
}  // namespace trainyard::coordinator
