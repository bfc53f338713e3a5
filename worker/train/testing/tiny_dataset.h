// A data set folder of a given text, one token a byte, for tests.
#pragma once

#include <string>
#include <vector>

#include "base/check.h"
#include "base/file.h"
#include "base/testing/temp_dir.h"
#include "worker/data/dataset.h"
#include "worker/data/token_shard.h"
#include "worker/data/tokenizer.h"

namespace trainyard::train::testing {

// English enough to have structure on every scale: ~2.4 kB.
inline std::string TinyText() {
  const std::string verses =
      "The yard is wide, the trains are long, the night is full of light. "
      "A signal turns from red to green and one more train is right. "
      "The engine hums, the wagons roll, the rails begin to sing. "
      "And far away another yard will hear the morning ring. ";
  std::string text;
  for (int i = 0; i < 10; ++i) text += verses;
  return text;
}

class TinyDataset {
 public:
  explicit TinyDataset(const std::string& train = TinyText(),
                       const std::string& validation = TinyText().substr(0, 600)) {
    const data::Tokenizer tokenizer = data::Tokenizer::Bytes();
    data::DatasetInfo info;
    info.vocab_size = tokenizer.vocab_size();
    info.end_of_text_id = tokenizer.end_of_text_id();
    info.tokenizer = "bytes";
    info.tokenizer_digest = DigestOf(tokenizer.ToJson());
    info.source_bytes = static_cast<int64_t>(train.size() + validation.size());
    info.train = {Write("train-00000.bin", tokenizer.Encode(train), info.vocab_size)};
    info.validation = {Write("validation-00000.bin", tokenizer.Encode(validation), info.vocab_size)};
    TY_CHECK_OK(tokenizer.Save(dir_.Join("tokenizer.json")));
    TY_CHECK_OK(WriteFileAtomic(dir_.Join("dataset.json"), data::ToJson(info)));
  }
  const std::string& path() const { return dir_.path(); }

 private:
  data::ShardRecord Write(const std::string& file, const std::vector<int32_t>& tokens, int32_t vocab_size) {
    absl::StatusOr<data::TokenShardWriter> writer = data::TokenShardWriter::Create(dir_.Join(file), vocab_size);
    TY_CHECK_OK(writer);
    TY_CHECK_OK(writer->Append(tokens));
    absl::StatusOr<data::TokenShardInfo> info = writer->Finish();
    TY_CHECK_OK(info);
    return {file, *std::move(info)};
  }

  TempDir dir_;
};

}  // namespace trainyard::train::testing
