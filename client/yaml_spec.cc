#include "client/yaml_spec.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/io/tokenizer.h>
#include <google/protobuf/text_format.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include <iostream>
#include <iterator>
#include <optional>
#include <sstream>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "client/pipeline.h"
#include "client/yaml_to_proto.h"
#include "proto/spec/job_options.h"

namespace trainyard::client {
namespace {

using google::protobuf::FieldDescriptor;

// One job while it is read.
struct Draft {
  LoadedJob job;
  std::vector<SpecProblem> problems;
  std::set<std::string> bad_paths;
};

// True if `path` is one of `bad`, or lies inside or around one of them.
bool IsEcho(const std::string& path, const std::set<std::string>& bad) {
  for (const std::string& other : bad) {
    const std::string& longer = path.size() > other.size() ? path : other;
    const std::string& shorter = path.size() > other.size() ? other : path;
    if (shorter.empty() || !absl::StartsWith(longer, shorter)) continue;
    if (longer.size() == shorter.size() || longer[shorter.size()] == '.' || longer[shorter.size()] == '[') return true;
  }
  return false;
}

// Notes where each document starts and ignores the rest.
class DocumentStarts : public YAML::EventHandler {
 public:
  void OnDocumentStart(const YAML::Mark& mark) override { start = mark; }
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark&, YAML::anchor_t) override {}
  void OnAlias(const YAML::Mark&, YAML::anchor_t) override {}
  void OnScalar(const YAML::Mark&, const std::string&, YAML::anchor_t, const std::string&) override {}
  void OnSequenceStart(const YAML::Mark&, const std::string&, YAML::anchor_t, YAML::EmitterStyle::value) override {}
  void OnSequenceEnd() override {}
  void OnMapStart(const YAML::Mark&, const std::string&, YAML::anchor_t, YAML::EmitterStyle::value) override {}
  void OnMapEnd() override {}

  YAML::Mark start = YAML::Mark::null_mark();
};

absl::Status NotYaml(const std::string& origin, const YAML::Mark& mark, absl::string_view what) {
  return absl::InvalidArgumentError(
      absl::StrCat(origin, ":", mark.line + 1, ":", mark.column + 1, ": not valid YAML: ", what));
}

// LoadAll of yaml-cpp 0.7 never ends on a stray token, such as a ']' after the document: it takes an empty document
// there again and again. So the documents are counted first, and one that starts where the last one did is refused.
absl::Status CheckDocuments(const std::string& origin, const std::string& content) {
  std::istringstream stream(content);
  YAML::Parser parser(stream);
  DocumentStarts documents;
  YAML::Mark last = YAML::Mark::null_mark();
  for (int count = 0; parser.HandleNextDocument(documents); ++count) {
    if (count > 0 && documents.start.pos == last.pos) return NotYaml(origin, last, "unexpected character");
    last = documents.start;
  }
  return absl::OkStatus();
}

// The parser's exceptions end here.
absl::StatusOr<std::vector<YAML::Node>> ParseYaml(const std::string& origin, const std::string& content) {
  try {
    TY_RETURN_IF_ERROR(CheckDocuments(origin, content));
    return YAML::LoadAll(content);
  } catch (const YAML::Exception& error) {
    return NotYaml(origin, error.mark, error.msg);
  } catch (const std::exception& error) {
    return absl::InvalidArgumentError(absl::StrCat(origin, ": not valid YAML: ", error.what()));
  }
}

absl::StatusOr<std::vector<Draft>> ReadYaml(const std::string& name, const std::string& content, bool is_json) {
  TY_ASSIGN_OR_RETURN(const std::vector<YAML::Node> documents, ParseYaml(name, content));
  std::vector<Draft> drafts;
  for (const YAML::Node& document : documents) {
    if (document.IsNull()) continue;  // "---" at the start or the end
    Draft draft;
    YamlToProto reader({.origin = name, .json_names = is_json}, &draft.job.sources, &draft.problems);
    reader.Convert(document, &draft.job.spec);
    draft.bad_paths = reader.bad_paths();
    drafts.push_back(std::move(draft));
  }
  return drafts;
}

class Collector : public google::protobuf::io::ErrorCollector {
 public:
  Collector(std::string origin, std::vector<SpecProblem>* problems) : origin_(std::move(origin)), problems_(problems) {}
  void AddError(int line, int column, const std::string& message) override {
    problems_->push_back({{origin_, line + 1, column + 1}, "", message});
  }

 private:
  const std::string origin_;
  std::vector<SpecProblem>* const problems_;
};

// Copies where the text format's parser found each field.
void CopyLocations(const google::protobuf::Descriptor& type, const google::protobuf::TextFormat::ParseInfoTree& tree,
                   const std::string& origin, const std::string& path, SourceMap* sources) {
  for (int i = 0; i < type.field_count(); ++i) {
    const FieldDescriptor* field = type.field(i);
    for (int index = field->is_repeated() ? 0 : -1;; ++index) {
      const auto location = tree.GetLocation(field, index);
      if (location.line < 0) break;
      std::string field_path = path.empty() ? field->name() : absl::StrCat(path, ".", field->name());
      if (index >= 0 && !field->is_map()) absl::StrAppend(&field_path, "[", index, "]");
      sources->Set(field_path, {origin, location.line + 1, location.column + 1});
      if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE && !field->is_map()) {
        if (const auto* nested = tree.GetTreeForNested(field, index)) {
          CopyLocations(*field->message_type(), *nested, origin, field_path, sources);
        }
      }
      if (index < 0) break;
    }
  }
}

std::vector<Draft> ReadTextProto(const std::string& name, const std::string& content) {
  Draft draft;
  Collector collector(name, &draft.problems);
  google::protobuf::TextFormat::ParseInfoTree tree;
  google::protobuf::TextFormat::Parser parser;
  parser.RecordErrorsTo(&collector);
  parser.WriteLocationsTo(&tree);
  parser.SetRecursionLimit(50);
  const bool is_parsed = parser.ParseFromString(content, &draft.job.spec);
  draft.job.sources.SetRoot({name, 1, 1});
  CopyLocations(*v1::JobSpec::descriptor(), tree, name, "", &draft.job.sources);
  if (!is_parsed && draft.problems.empty()) collector.AddError(0, 0, "not a valid textproto");
  std::vector<Draft> drafts;
  drafts.push_back(std::move(draft));
  return drafts;
}

absl::Status ApplyOverride(const std::string& text, Draft* draft) {
  const std::string origin = absl::StrCat("--set ", text);
  const size_t equals = text.find('=');
  if (equals == std::string::npos || equals == 0) {
    return absl::InvalidArgumentError(absl::StrCat(origin, ": expected path=value"));
  }
  TY_ASSIGN_OR_RETURN(const std::vector<YAML::Node> values, ParseYaml(origin, text.substr(equals + 1)));
  if (values.size() > 1) return absl::InvalidArgumentError(absl::StrCat(origin, ": more than one value"));
  YAML::Node node = values.empty() ? YAML::Node(YAML::NodeType::Null) : values[0];
  const std::vector<std::string> names = absl::StrSplit(text.substr(0, equals), '.');
  constexpr size_t kDeepest = 32;
  if (names.size() > kDeepest) return absl::InvalidArgumentError(absl::StrCat(origin, ": no such field"));
  // A key of a map may have points in it: what follows "labels." is one name.
  const bool is_map = names.size() > 1 && (names[0] == "labels" || names[0] == "annotations");
  const size_t depth = is_map ? 2 : names.size();
  for (size_t i = depth; i-- > 0;) {
    const std::string name =
        is_map && i == 1 ? text.substr(names[0].size() + 1, equals - names[0].size() - 1) : names[i];
    YAML::Node outer(YAML::NodeType::Map);
    outer.force_insert(name, node);
    node.reset(outer);
  }
  const SourceLocation root = draft->job.sources.Find("");
  YamlToProto reader({.origin = origin, .has_lines = false, .is_override = true}, &draft->job.sources,
                     &draft->problems);
  reader.Convert(node, &draft->job.spec);
  draft->job.sources.SetRoot(root);
  draft->bad_paths.insert(reader.bad_paths().begin(), reader.bad_paths().end());
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<LoadedJob>> ParseJobFile(const std::string& name, const std::string& content,
                                                    const std::vector<std::string>& overrides) {
  if (content.size() > kMaxSpecBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, ": ", content.size(), " bytes, a job file may have ", kMaxSpecBytes));
  }
  std::vector<Draft> drafts;
  if (absl::EndsWith(name, ".textproto") || absl::EndsWith(name, ".pbtxt")) {
    drafts = ReadTextProto(name, content);
  } else {
    TY_ASSIGN_OR_RETURN(drafts, ReadYaml(name, content, absl::EndsWith(name, ".json")));
  }
  if (drafts.empty()) return absl::InvalidArgumentError(absl::StrCat(name, ": no job in it"));

  std::vector<SpecProblem> problems;
  std::vector<LoadedJob> jobs;
  std::vector<spec::JobOptions> options;
  for (Draft& draft : drafts) {
    for (const std::string& text : overrides) TY_RETURN_IF_ERROR(ApplyOverride(text, &draft));
    absl::StatusOr<spec::JobOptions> parsed = spec::ParseJob(draft.job.spec);
    if (parsed.ok()) options.push_back(*std::move(parsed));
    for (const FieldViolation& violation : GetFieldViolations(parsed.status())) {
      if (IsEcho(violation.path, draft.bad_paths)) continue;
      draft.problems.push_back({draft.job.sources.Find(violation.path), violation.path, violation.text});
    }
    problems.insert(problems.end(), draft.problems.begin(), draft.problems.end());
    jobs.push_back(std::move(draft.job));
  }
  if (options.size() == jobs.size()) {
    for (SpecProblem& problem : FindPipelineProblems(jobs, options)) problems.push_back(std::move(problem));
  }
  TY_RETURN_IF_ERROR(ProblemsToStatus(std::move(problems)));
  return jobs;
}

absl::StatusOr<std::vector<LoadedJob>> LoadJobFile(const std::string& path, const std::vector<std::string>& overrides) {
  if (path == "-") {
    const std::string content((std::istreambuf_iterator<char>(std::cin)), std::istreambuf_iterator<char>());
    return ParseJobFile("stdin", content, overrides);
  }
  TY_ASSIGN_OR_RETURN(const std::string content, ReadFile(path));
  return ParseJobFile(path, content, overrides);
}

}  // namespace trainyard::client
