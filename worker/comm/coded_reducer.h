// The scatter-reduce-allgather of codec.h for the tensors of one bucket.
//
// The bucket's elements, its tensors one after the other, are cut by PartOf; a part is a list of slices. Each slice is
// encoded on its own and starts at a multiple of 8 bytes; slices of tensors that the policy exempts travel as f32.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "kernels/core/tensor.h"
#include "worker/comm/codec.h"
#include "worker/comm/communicator.h"

namespace trainyard::comm {

struct CodedTensor {
  kernels::TensorView gradient;  // f32 or bf16
  int index = 0;                 // CodecSlice::tensor
  bool is_coded = true;
};

// Buffers that the buckets of one exchange take turns to use. Grown when a bucket or a codec needs more.
struct CodedBuffers {
  std::vector<char> sent, received, gathered;
  std::vector<float> values, decoded, sum;
  int64_t bytes() const;
};

class CodedReducer {
 public:
  CodedReducer(std::vector<CodedTensor> tensors, int ranks, int rank);

  // Makes the buffers large enough for the codec's present sizes.
  void Reserve(const Codec& codec, CodedBuffers* buffers);

  // Every gradient becomes what all ranks decode as scale * sum over ranks.
  absl::Status Reduce(int64_t step, float scale, Codec& codec, Communicator& communicator, CodedBuffers* buffers);

 private:
  struct Slice {
    CodecSlice where;
    kernels::TensorView values;  // one-dimensional
    bool is_coded;
  };
  int64_t BytesOf(const Codec& codec, const Slice& slice, int phase) const;
  int64_t BytesOf(const Codec& codec, const std::vector<Slice>& part, int phase) const;
  void Encode(Codec& codec, const CodecKey& key, const Slice& slice, const float* values, char* out) const;
  void Decode(Codec& codec, int phase, const Slice& slice, const char* in, float* values) const;

  const int ranks_, rank_;
  std::vector<std::vector<Slice>> parts_;  // by owner
  int64_t longest_slice_ = 0, own_elements_ = 0;
  Communicator::Blocks blocks_;
  std::vector<int64_t> part_bytes_;  // phase 2
};

}  // namespace trainyard::comm
