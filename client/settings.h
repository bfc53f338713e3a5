// Where to connect and how to print: the config file, over it the environment, over it the flags.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "proto/rpc/tls_files.h"

namespace trainyard::client {

enum class OutputFormat { kTable, kWide, kJson, kYaml, kJsonl, kName };

std::optional<OutputFormat> ParseOutputFormat(absl::string_view text);

struct Settings {
  std::string address = "127.0.0.1:7070";
  std::string name_space = "default";
  bool insecure = false;
  TlsFiles tls = {};
  OutputFormat output = OutputFormat::kTable;
};

using GetEnv = std::function<const char*(const char*)>;

// Config file: YAML with the keys address, namespace, insecure, output, tls_cert, tls_key, tls_ca; $TRAINYARD_CONFIG,
// else $XDG_CONFIG_HOME/trainyard/config.yaml, else ~/.config/trainyard/config.yaml; fine if it does not exist.
// Environment: TRAINYARD_ADDRESS, TRAINYARD_NAMESPACE, TRAINYARD_TLS_CERT, TRAINYARD_TLS_KEY, TRAINYARD_TLS_CA.
// InvalidArgument names the file, line and key.
absl::StatusOr<Settings> LoadSettings(const GetEnv& get_env);

}  // namespace trainyard::client
