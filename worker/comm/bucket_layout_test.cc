#include "worker/comm/bucket_layout.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/comm/partition.h"

namespace trainyard::comm {
namespace {

std::vector<GradientLayerSpec> Layers(const std::vector<int64_t>& elements) {
  std::vector<GradientLayerSpec> layers;
  for (int64_t count : elements) layers.push_back({{{count, 2}}});
  return layers;
}

std::string Describe(const std::vector<Bucket>& buckets) {
  std::string text;
  for (const Bucket& bucket : buckets) {
    text += "[" + std::to_string(bucket.first_layer) + ".." + std::to_string(bucket.last_layer) + "]" +
            std::to_string(bucket.elements) + " ";
  }
  return text;
}

TEST(LayOutBucketsTest, GoesBackwardAndFillsUpToTheLimit) {
  EXPECT_EQ(Describe(LayOutBuckets(Layers({10, 20, 30, 40}), 4, 280)), "[2..3]70 [0..1]30 ");
  EXPECT_EQ(Describe(LayOutBuckets(Layers({10, 20, 30, 40}), 4, 239)), "[3..3]40 [1..2]50 [0..0]10 ");
  EXPECT_EQ(Describe(LayOutBuckets(Layers({10, 20, 30, 40}), 2, 200)), "[0..3]100 ");
}

TEST(LayOutBucketsTest, ALayerBeyondTheLimitIsABucketOfItsOwn) {
  EXPECT_EQ(Describe(LayOutBuckets(Layers({1, 1000, 1}), 4, 100)), "[2..2]1 [1..1]1000 [0..0]1 ");
}

TEST(LayOutBucketsTest, EmptyLayersJoinTheirNeighbours) {
  EXPECT_EQ(Describe(LayOutBuckets(Layers({0, 5, 0, 5, 0}), 4, 20)), "[2..4]5 [0..1]5 ");
  EXPECT_EQ(Describe(LayOutBuckets({}, 4, 20)), "");
}

TEST(LayoutDigestTest, SeesEveryNumber) {
  const auto digest = [](std::vector<GradientLayerSpec> layers, int64_t bytes) {
    return LayoutDigest(layers, LayOutBuckets(layers, 4, bytes));
  };
  const uint64_t base = digest(Layers({10, 20}), 1000);
  EXPECT_EQ(base, digest(Layers({10, 20}), 2000));  // the same buckets come out
  EXPECT_NE(base, digest(Layers({20, 10}), 1000));
  EXPECT_NE(base, digest(Layers({10, 20}), 40));
  EXPECT_NE(base, digest({{{{10, 1}}}, {{{20, 2}}}}, 1000));
  EXPECT_NE(base, digest({{{{10, 2}, {20, 2}}}}, 1000));
}

TEST(PartOfTest, CoversInOrderAtMultiplesOfTheGrainAndDiffersByOneGrainAtMost) {
  for (int64_t count : {0, 1, 7, 8, 9, 63, 64, 65, 1000, 1003, 100000}) {
    for (int parts : {1, 2, 3, 4, 7, 16}) {
      int64_t end = 0, longest = 0, shortest = count;
      for (int index = 0; index < parts; ++index) {
        const Part part = PartOf(count, parts, index);
        EXPECT_EQ(part.begin, end);
        EXPECT_TRUE(part.begin % kPartGrain == 0 || part.begin == count);
        end = part.end;
        longest = std::max(longest, part.size());
        shortest = std::min(shortest, part.size());
      }
      EXPECT_EQ(end, count);
      EXPECT_LE(longest - shortest, 2 * kPartGrain - 1) << count << " in " << parts;  // the last may lack its tail too
    }
  }
}

}  // namespace
}  // namespace trainyard::comm
