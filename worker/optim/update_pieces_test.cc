// How parameters are cut, and what the cuts cost: no device is needed for it. That the bits are those of whole
// parameters is shown by //worker/train:offload_training_test.
#include "worker/optim/update_pieces.h"

#include "gtest/gtest.h"

namespace trainyard::optim {
namespace {

using kernels::Arena;
using kernels::Device;
using kernels::DType;
using kernels::Stream;
using kernels::TensorView;

constexpr int64_t kRows = 100, kCols = 130, kShort = 7;

// A matrix, and a shard of a vector.
std::vector<OptimizerParameter> Parameters(Arena& arena) {
  std::vector<OptimizerParameter> parameters(2);
  parameters[0] = {.name = "matrix",
                   .weight = arena.Allocate("weights", DType::kBF16, {kRows, kCols}),
                   .master = arena.AllocateShared("master", DType::kF32, {kRows, kCols}),
                   .gradient = arena.Allocate("gradients", DType::kF32, {kRows, kCols})};
  parameters[1] = {.name = "shard",
                   .weight = arena.Allocate("weights", DType::kBF16, {kShort}),
                   .master = arena.AllocateShared("master", DType::kF32, {kShort}),
                   .gradient = arena.Allocate("gradients", DType::kF32, {kShort}),
                   .first_element = 256,
                   .whole_size = 300};
  return parameters;
}

std::vector<UpdatedState> States(const std::vector<OptimizerParameter>& parameters, Place place, Arena& arena) {
  std::vector<UpdatedState> states(2);
  for (const OptimizerParameter& parameter : parameters) {
    const int64_t size = parameter.weight.size();
    states[0].tensors.push_back(place == Place::kHost ? arena.AllocateShared("moments", DType::kF8E4M3, {size})
                                                      : arena.Allocate("moments", DType::kF8E4M3, {size}));
    states[1].tensors.push_back(place == Place::kHost
                                    ? arena.AllocateShared("moments", DType::kF32, {(size + 127) / 128})
                                    : arena.Allocate("moments", DType::kF32, {(size + 127) / 128}));
  }
  states[1].stride = 128;
  for (UpdatedState& state : states) state.place = place;
  return states;
}

TEST(PieceElementsTest, AreAboutASixtyFourthInWholeGroups) {
  EXPECT_EQ(PieceElements(1), 128);
  EXPECT_EQ(PieceElements(64 * 128 - 1), 128);
  EXPECT_EQ(PieceElements(64 * 128), 256);
  for (const int64_t elements : {12'345, 1'000'000, 77'777'777}) {
    EXPECT_EQ(PieceElements(elements) % 128, 0);
    EXPECT_GT(PieceElements(elements), elements / 64);
    EXPECT_LE(PieceElements(elements), elements / 64 + 128);
  }
  EXPECT_EQ(PieceElements(int64_t{7} << 30), int64_t{1} << 21);
}

TEST(UpdatePiecesTest, ParametersAreWholeOnTheDevice) {
  Arena arena = Arena::CountOnly();
  const std::vector<OptimizerParameter> parameters = Parameters(arena);
  const UpdatePieces pieces(parameters, States(parameters, Place::kDevice, arena), Place::kDevice, arena);
  EXPECT_EQ(arena.plan().count("staging"), 0u);
  Stream stream(1);
  size_t calls = 0;
  pieces.ForEach(stream, [&](const UpdatePiece& piece) {
    const OptimizerParameter& parameter = parameters[calls++];
    EXPECT_EQ(piece.parameter, &parameter);
    EXPECT_EQ(piece.weight.size(), parameter.weight.size());
    EXPECT_EQ(piece.master.data(), parameter.master.data());
    EXPECT_EQ(piece.gradient.data(), parameter.gradient.data());
    EXPECT_EQ(piece.first_element, parameter.first_element);
    EXPECT_EQ(piece.state[1].size(), (parameter.weight.size() + 127) / 128);
  });
  EXPECT_EQ(calls, 2u);
}

// The matrix has 13,000 of 13,007 elements: pieces of 256.
TEST(UpdatePiecesTest, BuffersAreTwoPiecesOfWhatIsOnTheHost) {
  struct Case {
    Place moments, masters;
    int64_t bytes;  // of a piece: masters 4, moments 1 an element, two scales in 64 bytes
  };
  for (const Case& c : {Case{Place::kHost, Place::kHost, 256 * 4 + 256 + 64},
                        Case{Place::kHost, Place::kDevice, 256 + 64}, Case{Place::kDevice, Place::kHost, 256 * 4}}) {
    Arena arena = Arena::CountOnly(Device::kCuda);
    const std::vector<OptimizerParameter> parameters = Parameters(arena);
    const UpdatePieces pieces(parameters, States(parameters, c.moments, arena), c.masters, arena);
    EXPECT_EQ(arena.plan().at("staging"), 2 * c.bytes);
    EXPECT_EQ(arena.pinned_plan().count("staging"), 0u);
    EXPECT_EQ(arena.pinned_plan().count("moments"), c.moments == Place::kHost ? 1u : 0u);
  }
}

TEST(UpdatePiecesDeathTest, OnTheCpuThereIsNothingToStageFor) {
  Arena arena = Arena::CountOnly();
  const std::vector<OptimizerParameter> parameters = Parameters(arena);
  EXPECT_DEATH(UpdatePieces(parameters, States(parameters, Place::kHost, arena), Place::kHost, arena), "check failed");
}

}  // namespace
}  // namespace trainyard::optim
