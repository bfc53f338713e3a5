// The layer lists of the GAN nets; see gan_net.h for what they are.
#pragma once

#include "worker/model/gan/gan_net.h"
#include "worker/model/gan/layer_program.h"

namespace trainyard::model {

// `options` must be valid.
LayerProgram GeneratorProgram(const GanNetOptions& options);
LayerProgram DiscriminatorProgram(const GanNetOptions& options);

}  // namespace trainyard::model
