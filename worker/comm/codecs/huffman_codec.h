// The codes of another codec, entropy coded: the same values, fewer bytes, of a length that depends on the data.
//
// Wire: the buckets' metadata as they are, the length of the stream in bytes (u32), the stream
// (kernels/codec/huffman.h). No padding; every code has a Huffman code, so any data can be sent with any table.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/types/span.h"
#include "kernels/codec/huffman.h"
#include "worker/comm/codecs/packed_codec.h"

namespace trainyard::comm {

// `table` has 2^bits symbols, bits those of the inner codec's codes. name() is the inner one's.
std::unique_ptr<Codec> MakeHuffmanCodec(std::unique_ptr<PackedCodec> inner, kernels::HuffmanTable table);

// Encodes, on the host, and counts how often each code occurs: counts[code] += ..., counts has 2^bits elements. What a
// table is made from, after the ranks have added up their counts.
void AddCodeCounts(PackedCodec& codec, const CodecSlice& slice, const CodecKey& key, const float* values,
                   absl::Span<int64_t> counts);

}  // namespace trainyard::comm
