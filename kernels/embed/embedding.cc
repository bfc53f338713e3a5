#include "kernels/embed/embedding.h"

#include "kernels/core/dispatch.h"
#include "kernels/embed/embedding_internal.h"

namespace trainyard::kernels {

void EmbeddingForward(const EmbeddingForwardArgs& args, Stream& stream) {
  TY_CHECK_EQ(args.table.rank(), 2);
  TY_CHECK_EQ(args.y.rank(), 2);
  TY_CHECK_EQ(args.y.dim(0), args.tokens.size());
  TY_CHECK_EQ(args.y.dim(1), args.table.dim(1));
  TY_CHECK(args.y.dtype() == args.table.dtype());
  TY_SELECT(stream, EmbeddingForward)(args, stream);
}

void EmbeddingBackward(const EmbeddingBackwardArgs& args, Stream& stream) {
  TY_CHECK_EQ(args.dtable.rank(), 2);
  TY_CHECK_EQ(args.dy.rank(), 2);
  TY_CHECK_EQ(args.dy.dim(0), args.tokens.size());
  TY_CHECK_EQ(args.dy.dim(1), args.dtable.dim(1));
  TY_CHECK(args.dtable.dtype() == args.dy.dtype() || args.dtable.dtype() == DType::kF32);
  const int64_t needed_bytes = EmbeddingBackwardWorkspaceBytes(args.tokens.size());
  if (needed_bytes > 0) TY_CHECK_GE(args.workspace ? args.workspace.bytes() : 0, needed_bytes);
  TY_SELECT(stream, EmbeddingBackward)(args, stream);
}

// Two lists of (token, row); on a CUDA device a table of digits too.
int64_t EmbeddingBackwardWorkspaceBytes(int64_t rows) {
  return 2 * rows * static_cast<int64_t>(sizeof(uint64_t)) + internal::DigitTableBytes(rows);
}

}  // namespace trainyard::kernels
