// The codecs in force: for each tensor one for pieces (phase 1) and one for sums (phase 2). Tensors of one layer type
// and with equal bits share a codec, and with it a level table and a code table.
//
// What adaptation changes (bits of a tensor, level and code tables) is the text of a CodecSet: rank 0 makes it, all
// ranks take it over, checkpoints hold it. Equal texts make equal codecs.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "worker/comm/codec.h"
#include "worker/comm/exchange_state.h"
#include "worker/comm/layer_types.h"

namespace trainyard::comm {

// Bits of a value on the wire, without metadata: 32 for identity, 1 for sign_mean, 64 * density for top_k.
double BitsOf(const spec::CodecOptions& codec);

// True for a tensor that its type's codec may touch: a matrix of at least min_elements.
bool IsCoded(const spec::CommunicationOptions& options, const spec::CodecOptions& codec, int64_t elements, int dims);

class CodecSet {
 public:
  struct Tensor {
    int type = 0;  // index into types
    int64_t elements = 0;
    bool is_coded = false;
  };
  // Tensors with one codec.
  struct Group {
    CodecSetting setting;
    std::unique_ptr<Codec> codec;
  };
  using GroupKey = std::pair<int, int>;  // type, bits (0 for codecs without)

  CodecSet(const spec::CommunicationOptions& options, const CodecFactory& make_codec, std::vector<LayerType> types,
           std::vector<Tensor> tensors);

  bool is_coded(int tensor) const { return tensors_[Index(tensor)].is_coded; }
  int type_of(int tensor) const { return tensors_[Index(tensor)].type; }
  const std::vector<LayerType>& types() const { return types_; }

  // Of coded tensors; shared, so for one thread at a time.
  Codec& phase1(int tensor) const { return *group_of_[Index(tensor)]->codec; }
  Codec& phase2(int tensor) const {
    Codec* sum = phase2_[Index(tensors_[Index(tensor)].type)].get();
    return sum != nullptr ? *sum : phase1(tensor);  // top_k: dense sums would undo it
  }

  // Bits of a tensor's maxmin or levels codec; 0 for others.
  int bits(int tensor) const { return keys_[Index(tensor)].second; }
  GroupKey key(int tensor) const { return keys_[Index(tensor)]; }
  const std::map<GroupKey, Group>& groups() const { return groups_; }
  // Mean over the elements of a type's coded tensors; types without any are left out.
  std::map<std::string, double> BitsByType() const;

  // How often something was changed.
  int64_t epoch() const { return epoch_; }

  // By rank 0, which then sends Text to all.
  void SetBits(const std::vector<int>& bits);  // a tensor; only coded maxmin ones are changed
  void SetLevels(GroupKey group, std::vector<float> levels);
  void SetCodeTable(GroupKey group, std::string table);

  std::string Text() const;
  // DataLoss for a text that is none or was made for other tensors; then nothing is changed.
  absl::Status Restore(const std::string& text);

 private:
  static size_t Index(int number) { return static_cast<size_t>(number); }
  void Regroup();
  CodecSetting FirstSetting(GroupKey key) const;
  void MakeCodecOf(Group* group);

  const spec::CommunicationOptions options_;
  const CodecFactory make_codec_;
  const std::vector<LayerType> types_;
  const std::vector<Tensor> tensors_;
  std::vector<GroupKey> keys_;                  // by tensor
  std::map<GroupKey, Group> groups_;            // those in use; those of coded types first made stay
  std::vector<Group*> group_of_;                // by tensor; null for uncoded ones
  std::vector<std::unique_ptr<Codec>> phase2_;  // by type; null: as phase 1
  int64_t epoch_ = 0;
};

}  // namespace trainyard::comm
