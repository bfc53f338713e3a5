// Which layer type a parameter belongs to, told from its name: each type may travel by a codec of its own.
//
// Own types come first: a parameter whose whole name matches the type's pattern (* any characters, ? one). Then the
// built-in ones, by the parts of the name between dots:
//
//   norm       a part with "norm", or bn, ln
//   embedding  a part with "embed"; wte, wpe
//   head       the last part before weight or bias is head or lm_head
//   attention  a part with "attention" or "attn", or qkv; q_proj, k_proj, v_proj, o_proj; output under layers
//   mlp        a part with "mlp" or "ffn"; gate_up, gate, up, down and the same with _proj
//   conv       a part with "conv"
//   linear     a part with "linear", "dense" or "fc"
//   other      all the rest
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "proto/spec/communication_options.h"

namespace trainyard::comm {

absl::string_view BuiltInLayerType(absl::string_view parameter);

struct LayerType {
  std::string name;
  spec::CodecOptions codec;
};

struct LayerTypes {
  std::vector<LayerType> types;  // those that occur, by name
  std::vector<int> of_tensor;    // index into `types`
};

// InvalidArgument names an own type that matches no parameter, and a parameter that two own types match.
absl::StatusOr<LayerTypes> AssignLayerTypes(const spec::CommunicationOptions& options,
                                            const std::vector<std::string>& parameters);

}  // namespace trainyard::comm
