#include "worker/study/recipe_traits.h"

#include <gtest/gtest.h>

namespace trainyard::study {
namespace {

using scaling::ActsOn;
using spec::LinearQuartet;
using spec::LinearQuartet2;
using spec::LinearQuest;

spec::LinearOptions Linear(decltype(spec::LinearOptions::scheme) scheme) {
  spec::LinearOptions options;
  options.scheme = std::move(scheme);
  return options;
}

// scaling-laws 2.1: weights and activations of 4 bits hold 0.820^2, weights alone 0.820.
TEST(RecipeTraitsTest, QuestHasACapacityFromItsGrids) {
  LinearQuest quest;
  const RecipeTraits both = TraitsOf(Linear(quest));
  EXPECT_EQ(both.acts_on, ActsOn::kParameters);
  EXPECT_EQ(both.bits, 4);
  EXPECT_NEAR(both.capacity.value(), 0.672, 6e-4);
  quest.activation_grid = LinearQuest::Grid::kNone;
  EXPECT_NEAR(TraitsOf(Linear(quest)).capacity.value(), 0.820, 6e-4);
  quest.weight_bits = 2;
  EXPECT_NEAR(TraitsOf(Linear(quest)).capacity.value(), 0.444, 6e-4);
  EXPECT_EQ(TraitsOf(Linear(quest)).bits, 2);
  quest.weight_grid = LinearQuest::Grid::kInt24;
  EXPECT_FALSE(TraitsOf(Linear(quest)).capacity.has_value());
  EXPECT_EQ(TraitsOf(Linear(quest)).bits, 0);
  quest = LinearQuest{};
  quest.projection = LinearQuest::Projection::kAbsMax;
  EXPECT_FALSE(TraitsOf(Linear(quest)).capacity.has_value());
}

TEST(RecipeTraitsTest, WhatIsCompressedSaysWhichEfficiencyIsFitted) {
  LinearQuartet quartet;
  EXPECT_EQ(TraitsOf(Linear(quartet)).acts_on, ActsOn::kBoth);
  quartet.backward_method = LinearQuartet::BackwardMethod::kNone;
  EXPECT_EQ(TraitsOf(Linear(quartet)).acts_on, ActsOn::kParameters);
  quartet = LinearQuartet{};
  quartet.forward_method = LinearQuartet::ForwardMethod::kNone;
  EXPECT_EQ(TraitsOf(Linear(quartet)).acts_on, ActsOn::kTokens);
  EXPECT_EQ(TraitsOf(Linear(quartet)).bits, 0);  // its weights are not stored in few bits
  LinearQuartet2 second;
  EXPECT_EQ(TraitsOf(Linear(second)).acts_on, ActsOn::kBoth);
  second.forward_enabled = false;
  EXPECT_EQ(TraitsOf(Linear(second)).acts_on, ActsOn::kTokens);
  EXPECT_EQ(TraitsOf(Linear(spec::LinearFp32{})).acts_on, ActsOn::kParameters);
}

}  // namespace
}  // namespace trainyard::study
