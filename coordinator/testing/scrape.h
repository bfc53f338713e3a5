// A process's /metrics as tests read it.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace trainyard::coordinator {

// Header and body of GET http://<address><path>; empty if nobody answers. `address` is "127.0.0.1:<port>".
std::string HttpGet(const std::string& address, const std::string& path = "/metrics");

// Our series, "name{labels}" -> value. Those of the exposer library itself are left out.
std::map<std::string, double> SeriesOf(absl::string_view page);

// Of a name and all the label texts given ('method="Jobs/Get"'), added up; 0 if there is none.
double SumOf(const std::map<std::string, double>& series, const std::string& name,
             const std::vector<std::string>& labels = {});

}  // namespace trainyard::coordinator
