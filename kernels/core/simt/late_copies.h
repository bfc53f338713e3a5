// Streams of the emulated device, and the order of their work. Kernels run when they are launched. Copies of copy
// streams run as late as the order allows: when their stream is synchronised, or when another stream is to go on after
// them. So a kernel that was not told to wait for a copy finds old data, and a buffer that is filled again before its
// copy has left it is copied wrong: what would be a race on a real device shows in the bits, in every run.
//
// A copy that should have waited for a kernel and did not is not found: here the kernel is always done.
#pragma once

#include <cstdint>

namespace trainyard::simt {

enum class StreamKind { kKernels, kCopies };

void* CreateStream(StreamKind kind);
// Runs what is left.
void DestroyStream(void* stream);
void EnqueueCopy(void* stream, void* to, const void* from, int64_t bytes);
// What `stream` is given from now on runs after what `other` has been given so far.
void OrderStreams(void* stream, void* other);
// Run what is left: of this stream, of all.
void FinishStream(void* stream);
void FinishAllStreams();

}  // namespace trainyard::simt
