// Token embedding: rows of a table.
//
//   y[r,:] = table[tokens[r],:]
//   dtable[tokens[r],:] += dy[r,:]                        ACCUMULATES
//
// tokens: (rows) i32, each in [0, vocab_size), which is checked; table: (vocab_size, cols); y, dy: (rows, cols); f32 or
// bf16; dtable has the dtype of dy or is f32. The rows of one token are added in f32 and rounded once, so that bf16
// does not lose small gradients of frequent tokens: on the CPU in ascending order, on a CUDA device in an order that
// follows from the number of these rows. The same bits for any number of threads.
#pragma once

#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"

namespace trainyard::kernels {

struct EmbeddingForwardArgs {
  TensorView tokens, table, y;
};
void EmbeddingForward(const EmbeddingForwardArgs& args, Stream& stream);

struct EmbeddingBackwardArgs {
  TensorView tokens, dy, dtable;
  TensorView workspace;  // EmbeddingBackwardWorkspaceBytes(rows), any dtype, aligned to 64
};
void EmbeddingBackward(const EmbeddingBackwardArgs& args, Stream& stream);

int64_t EmbeddingBackwardWorkspaceBytes(int64_t rows);

}  // namespace trainyard::kernels
