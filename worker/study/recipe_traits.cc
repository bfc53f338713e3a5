#include "worker/study/recipe_traits.h"

#include <variant>

#include "base/overloaded.h"
#include "scaling/capacity.h"

namespace trainyard::study {
namespace {

using scaling::ActsOn;

ActsOn ActsOnOf(bool compresses_forward, bool compresses_backward) {
  if (compresses_forward && compresses_backward) return ActsOn::kBoth;
  return compresses_backward ? ActsOn::kTokens : ActsOn::kParameters;
}

std::optional<double> GridCapacity(spec::LinearQuest::Grid grid, int bits) {
  switch (grid) {
    case spec::LinearQuest::Grid::kNone:
      return 1.0;
    case spec::LinearQuest::Grid::kInt:
      return scaling::Capacity(scaling::UniformGridError(bits));
    case spec::LinearQuest::Grid::kFp4:
      return scaling::Capacity(scaling::Fp4Error());
    case spec::LinearQuest::Grid::kInt24:
      return std::nullopt;
  }
  return std::nullopt;
}

double BitsOf(spec::LinearQuest::Grid grid, int bits) {
  switch (grid) {
    case spec::LinearQuest::Grid::kInt:
      return bits;
    case spec::LinearQuest::Grid::kFp4:
      return 4;
    case spec::LinearQuest::Grid::kNone:
    case spec::LinearQuest::Grid::kInt24:
      return 0;
  }
  return 0;
}

RecipeTraits TraitsOfQuest(const spec::LinearQuest& quest) {
  RecipeTraits traits;
  traits.bits = BitsOf(quest.weight_grid, quest.weight_bits);
  if (quest.projection != spec::LinearQuest::Projection::kMseClip) return traits;
  const auto weights = GridCapacity(quest.weight_grid, quest.weight_bits);
  const auto activations = GridCapacity(quest.activation_grid, quest.activation_bits);
  if (weights && activations) traits.capacity = *weights * *activations;
  return traits;
}

}  // namespace

RecipeTraits TraitsOf(const spec::LinearOptions& linear) {
  constexpr double kMxfp4Bits = 4.25;  // a scale of 8 bits for 32
  constexpr double kNvfp4Bits = 4.5;   // a scale of 8 bits for 16
  return std::visit(
      Overloaded{
          [](const spec::LinearFp32&) {
            return RecipeTraits{ActsOn::kParameters, 32, {}};
          },
          [](const spec::LinearBf16&) {
            return RecipeTraits{ActsOn::kParameters, 16, {}};
          },
          [](const spec::LinearFp8&) {
            return RecipeTraits{ActsOn::kBoth, 8, {}};
          },
          [](const spec::LinearQuest& quest) { return TraitsOfQuest(quest); },
          [&](const spec::LinearQuartet& quartet) {
            const bool forward = quartet.forward_method != spec::LinearQuartet::ForwardMethod::kNone;
            const bool backward = quartet.backward_method != spec::LinearQuartet::BackwardMethod::kNone;
            return RecipeTraits{ActsOnOf(forward, backward), forward ? kMxfp4Bits : 0, {}};
          },
          [&](const spec::LinearQuartet2& quartet) {
            const bool backward = quartet.backward_enabled &&
                                  quartet.backward_quantizer != spec::LinearQuartet2::BackwardQuantizer::kNone;
            return RecipeTraits{
                ActsOnOf(quartet.forward_enabled, backward), quartet.forward_enabled ? kNvfp4Bits : 0, {}};
          },
      },
      linear.scheme);
}

}  // namespace trainyard::study
