// What an optimizer of games updates.
#pragma once

#include <string>

#include "kernels/core/tensor.h"
#include "worker/optim/optimizer.h"

namespace trainyard::optim {

enum class Player { kGenerator, kDiscriminator };

struct GameParameter {
  std::string name;
  kernels::TensorView weight;    // f32
  kernels::TensorView gradient;  // f32
  Player player = Player::kGenerator;
};

}  // namespace trainyard::optim
