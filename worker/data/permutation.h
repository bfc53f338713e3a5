// A random permutation of 0 .. size - 1 in constant memory: any element at once, with no list and no state.
//
// A balanced Feistel network over the smallest even number of bits that holds `size`, with Philox as the round
// function (Luby and Rackoff, SIAM J. Comput. 1988); values outside the range are sent through again until they fall
// inside ("cycle walking": Black and Rogaway, CT-RSA 2002), at most 4 passes on average.
#pragma once

#include <cstdint>

namespace trainyard::data {

class Permutation {
 public:
  // `size` in 1 .. 2^62. Equal (size, seed, epoch) give the same permutation on every machine.
  Permutation(int64_t size, uint64_t seed, uint32_t epoch);

  // The image of `index`, 0 <= index < size.
  int64_t operator()(int64_t index) const;

 private:
  uint64_t Pass(uint64_t value) const;

  uint64_t size_;
  uint64_t seed_;
  uint32_t epoch_;
  int half_bits_ = 1;
};

}  // namespace trainyard::data
