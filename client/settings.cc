#include "client/settings.h"

#include <yaml-cpp/yaml.h>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_macros.h"

namespace trainyard::client {
namespace {

std::string ConfigPath(const GetEnv& get_env) {
  if (const char* path = get_env("TRAINYARD_CONFIG")) return path;
  if (const char* root = get_env("XDG_CONFIG_HOME")) return JoinPath(root, "trainyard/config.yaml");
  if (const char* home = get_env("HOME")) return JoinPath(home, ".config/trainyard/config.yaml");
  return "";
}

absl::Status ApplyEntry(const std::string& key, const std::string& value, Settings* settings) {
  if (key == "address") {
    settings->address = value;
  } else if (key == "namespace") {
    settings->name_space = value;
  } else if (key == "insecure" && (value == "true" || value == "false")) {
    settings->insecure = value == "true";
  } else if (key == "output" && ParseOutputFormat(value).has_value()) {
    settings->output = *ParseOutputFormat(value);
  } else if (key == "tls_cert") {
    settings->tls.cert = value;
  } else if (key == "tls_key") {
    settings->tls.key = value;
  } else if (key == "tls_ca") {
    settings->tls.ca = value;
  } else if (key == "insecure" || key == "output") {
    return absl::InvalidArgumentError(absl::StrCat(key, ": '", value, "' is not allowed"));
  } else {
    return absl::InvalidArgumentError(
        absl::StrCat(key, ": unknown key, known are address, namespace, insecure, output, tls_cert, tls_key, tls_ca"));
  }
  return absl::OkStatus();
}

absl::Status ApplyFile(const std::string& path, const std::string& content, Settings* settings) {
  try {
    const YAML::Node root = YAML::Load(content);
    if (root.IsNull()) return absl::OkStatus();
    if (!root.IsMap()) return absl::InvalidArgumentError(absl::StrCat(path, ": expected key: value lines"));
    for (const auto& entry : root) {
      const std::string place = absl::StrCat(path, ":", entry.first.Mark().line + 1);
      if (!entry.first.IsScalar() || !entry.second.IsScalar()) {
        return absl::InvalidArgumentError(absl::StrCat(place, ": expected key: value"));
      }
      TY_RETURN_IF_ERROR(Annotate(ApplyEntry(entry.first.Scalar(), entry.second.Scalar(), settings), place));
    }
  } catch (const std::exception& error) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": not valid YAML: ", error.what()));
  }
  return absl::OkStatus();
}

}  // namespace

std::optional<OutputFormat> ParseOutputFormat(absl::string_view text) {
  if (text == "table") return OutputFormat::kTable;
  if (text == "wide") return OutputFormat::kWide;
  if (text == "json") return OutputFormat::kJson;
  if (text == "yaml") return OutputFormat::kYaml;
  if (text == "jsonl") return OutputFormat::kJsonl;
  if (text == "name") return OutputFormat::kName;
  return std::nullopt;
}

absl::StatusOr<Settings> LoadSettings(const GetEnv& get_env) {
  Settings settings;
  const std::string path = ConfigPath(get_env);
  if (!path.empty() && FileExists(path)) {
    TY_ASSIGN_OR_RETURN(const std::string content, ReadFile(path));
    TY_RETURN_IF_ERROR(ApplyFile(path, content, &settings));
  }
  if (const char* address = get_env("TRAINYARD_ADDRESS")) settings.address = address;
  if (const char* name_space = get_env("TRAINYARD_NAMESPACE")) settings.name_space = name_space;
  if (const char* cert = get_env("TRAINYARD_TLS_CERT")) settings.tls.cert = cert;
  if (const char* key = get_env("TRAINYARD_TLS_KEY")) settings.tls.key = key;
  if (const char* ca = get_env("TRAINYARD_TLS_CA")) settings.tls.ca = ca;
  return settings;
}

}  // namespace trainyard::client
