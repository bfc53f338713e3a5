#include "worker/comm/layer_types.h"

#include "base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace trainyard::comm {
namespace {

using ::testing::HasSubstr;

TEST(LayerTypesTest, BuiltInTypesFollowFromNames) {
  const std::pair<const char*, const char*> cases[] = {
      {"embedding.weight", "embedding"},
      {"layers.0.attention_norm.weight", "norm"},
      {"layers.11.qkv.weight", "attention"},
      {"layers.11.qkv.bias", "attention"},
      {"layers.3.output.weight", "attention"},
      {"layers.3.mlp_norm.weight", "norm"},
      {"layers.3.gate_up.weight", "mlp"},
      {"layers.3.down.weight", "mlp"},
      {"final_norm.weight", "norm"},
      {"head.weight", "head"},
      {"generator.block1.conv1.weight", "conv"},
      {"generator.block1.deconv.weight", "conv"},
      {"generator.linear.weight", "linear"},
      {"discriminator.head.weight", "head"},
      {"discriminator.head.bias", "head"},
      {"model.layers.2.self_attn.q_proj.weight", "attention"},
      {"x", "other"},
      {"", "other"},
  };
  for (const auto& [name, type] : cases) EXPECT_EQ(BuiltInLayerType(name), type) << name;
}

TEST(LayerTypesTest, OwnTypesGoFirstAndTypesWithoutCodecTakeTheCommonOne) {
  spec::CommunicationOptions options;
  options.codec = spec::MaxminCodec{4};
  options.types = {{"critic", "d.*", spec::CodecOptions(spec::MaxminCodec{5})},
                   {"norm", "", spec::CodecOptions(spec::IdentityCodec())},
                   {"plain", "g.conv*", std::nullopt}};
  ASSERT_OK_AND_ASSIGN(const LayerTypes types,
                       AssignLayerTypes(options, {"d.conv.weight", "g.conv.weight", "g.norm.weight", "g.x"}));
  std::vector<std::string> names;
  for (int type : types.of_tensor) names.push_back(types.types[static_cast<size_t>(type)].name);
  EXPECT_THAT(names, ::testing::ElementsAre("critic", "plain", "norm", "other"));
  EXPECT_EQ(types.types[static_cast<size_t>(types.of_tensor[0])].codec, spec::CodecOptions(spec::MaxminCodec{5}));
  EXPECT_EQ(types.types[static_cast<size_t>(types.of_tensor[1])].codec, spec::CodecOptions(spec::MaxminCodec{4}));
  EXPECT_EQ(types.types[static_cast<size_t>(types.of_tensor[2])].codec, spec::CodecOptions(spec::IdentityCodec()));
}

TEST(LayerTypesTest, UnusedAndOverlappingPatternsAreRefused) {
  spec::CommunicationOptions options;
  options.types = {{"critic", "discriminator.*", std::nullopt}};
  EXPECT_THAT(AssignLayerTypes(options, {"generator.a"}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("communication.types.critic.match")));
  options.types = {{"a", "x.*", std::nullopt}, {"b", "*.y", std::nullopt}};
  EXPECT_THAT(AssignLayerTypes(options, {"x.z", "x.y"}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("x.y matches both a (x.*) and b (*.y)")));
}

}  // namespace
}  // namespace trainyard::comm
