// The release this tree builds.
#pragma once

namespace trainyard {

inline constexpr char kVersion[] = "0.1.0";

}  // namespace trainyard
