#include "kernels/tangent/random_direction.h"

#include <type_traits>

#include "kernels/core/dispatch.h"
#include "kernels/tangent/random_direction_internal.h"

namespace trainyard::kernels {

template <typename T>
void FillDirection(const DirectionKey& key, int64_t begin, int64_t count, T* out, Stream& stream) {
  TY_CHECK_GE(begin, 0);
  TY_CHECK_GE(count, 0);
  if constexpr (std::is_same_v<T, float>) {
    TY_SELECT(stream, FillDirection)(key, begin, count, out, stream);
  } else {
    TY_CHECK(stream.device() == Device::kCpu);
    FillDirection(key, begin, count, out);
  }
}

template void FillDirection<float>(const DirectionKey&, int64_t, int64_t, float*, Stream&);
template void FillDirection<double>(const DirectionKey&, int64_t, int64_t, double*, Stream&);

}  // namespace trainyard::kernels
