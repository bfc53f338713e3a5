// Turns a corpus into a dataset folder: tokenizer, shards, dataset.json.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/statusor.h"
#include "worker/data/corpus.h"
#include "worker/data/dataset.h"
#include "worker/data/pre_tokenizer.h"

namespace trainyard::data {

struct DatasetOptions {
  CorpusOptions corpus;
  std::string output;  // folder; made if needed
  // "bytes", "bpe" (trained on the training documents) or the path of a tokenizer.json.
  std::string tokenizer = "bpe";
  int32_t vocab_size = 4096;                                     // for "bpe"
  PreTokenizer::Pattern pattern = PreTokenizer::Pattern::kGpt2;  // for "bpe"
  // Share of the corpus, by bytes, kept for validation: 0 .. 0.5. Whole documents, drawn by `seed`, if some fit into
  // that share; otherwise the end of each document, from a line's start.
  double validation_fraction = 0.01;
  // Order of the documents, and which of them are for validation.
  uint64_t seed = 0;
  int64_t shard_tokens = int64_t{1} << 27;  // a new shard begins after the document that passes this
  bool overwrite = false;                   // replace the dataset in `output`
  // Called now and then with the name of the phase ("read", "train tokenizer", "encode") and bytes done of all.
  std::function<void(const char* phase, int64_t done, int64_t total)> progress;
};

// Each document is followed by the end-of-text token, if the tokenizer has one. The same options and files give the
// same bytes. dataset.json is written last: a folder without it is not finished. Codes: InvalidArgument for options
// out of range, FailedPrecondition for an output that holds a dataset, and those of Corpus::Open and Tokenizer::Load.
absl::StatusOr<DatasetInfo> BuildDataset(const DatasetOptions& options);

}  // namespace trainyard::data
