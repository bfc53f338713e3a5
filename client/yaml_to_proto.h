// The walk from a YAML tree to a message, by reflection.
#pragma once

#include <yaml-cpp/yaml.h>

#include <set>
#include <string>
#include <vector>

#include "client/source_map.h"

namespace google::protobuf {
class FieldDescriptor;
class Message;
}  // namespace google::protobuf

namespace trainyard::client {

struct YamlToProtoOptions {
  std::string origin;        // for locations
  bool has_lines = true;     // false: locations name the origin only
  bool json_names = false;   // also take "maxUserFailures"
  bool is_override = false;  // replace what the message has: lists, and other alternatives of a oneof
};

// Fills one message from one document. Problems do not stop it; bad fields stay unset.
class YamlToProto {
 public:
  YamlToProto(YamlToProtoOptions options, SourceMap* sources, std::vector<SpecProblem>* problems)
      : options_(std::move(options)), sources_(sources), problems_(problems) {}

  void Convert(const YAML::Node& node, google::protobuf::Message* message);

  // Paths that have a problem: what a later check says about them is only its echo.
  const std::set<std::string>& bad_paths() const { return bad_paths_; }

 private:
  void Fill(const YAML::Node& node, const std::string& path, google::protobuf::Message* message);
  void FillField(const YAML::Node& key, const YAML::Node& value, const std::string& path,
                 const google::protobuf::FieldDescriptor* field, google::protobuf::Message* message);
  void FillMap(const YAML::Node& value, const std::string& path, const google::protobuf::FieldDescriptor* field,
               google::protobuf::Message* message);
  void FillList(const YAML::Node& value, const std::string& path, const google::protobuf::FieldDescriptor* field,
                google::protobuf::Message* message);
  void FillMessage(const YAML::Node& value, const std::string& path, google::protobuf::Message* message);
  void FillDuration(const YAML::Node& value, const std::string& path, google::protobuf::Message* message);
  // Sets the field, or adds to it if it is repeated.
  void FillScalar(const YAML::Node& value, const std::string& path, const google::protobuf::FieldDescriptor* field,
                  google::protobuf::Message* message);

  SourceLocation LocationOf(const YAML::Node& node) const;
  void Problem(const std::string& path, const std::string& text);

  const YamlToProtoOptions options_;
  SourceMap* const sources_;
  std::vector<SpecProblem>* const problems_;
  std::set<std::string> bad_paths_;
};

}  // namespace trainyard::client
