#include "scaling/run_table.h"

#include <cmath>
#include <map>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "base/status_macros.h"

namespace trainyard::scaling {
namespace {

constexpr size_t kMaxRuns = 1'000'000;

using Columns = std::map<std::string, size_t>;

absl::StatusOr<Columns> ParseHeader(const std::vector<std::string>& names, int line) {
  Columns columns;
  for (size_t i = 0; i < names.size(); ++i) {
    static const char* const kKnown[] = {"recipe", "name", "parameters", "tokens", "loss", "seed", "acts_on", "bits"};
    bool is_known = false;
    for (const char* known : kKnown) is_known |= names[i] == known;
    if (!is_known || !columns.emplace(names[i], i).second) {
      return absl::InvalidArgumentError(absl::StrCat(
          "line ", line, ": column '", names[i],
          "' is unknown or there twice; known: recipe, name, parameters, tokens, loss, seed, acts_on, bits"));
    }
  }
  for (const char* needed : {"recipe", "parameters", "tokens", "loss"}) {
    if (columns.count(needed) == 0) {
      return absl::InvalidArgumentError(absl::StrCat("line ", line, ": there is no column '", needed, "'"));
    }
  }
  return columns;
}

class RowReader {
 public:
  RowReader(const Columns& columns, const std::vector<std::string>& cells, int line)
      : columns_(columns), cells_(cells), line_(line) {}

  std::string Text(const char* column) const {
    const auto it = columns_.find(column);
    return it == columns_.end() ? "" : cells_[it->second];
  }
  absl::Status Wrong(const char* column, const char* wanted) const {
    return absl::InvalidArgumentError(
        absl::StrCat("line ", line_, ", ", column, ": '", Text(column), "' is not ", wanted));
  }
  absl::StatusOr<double> Positive(const char* column) const {
    double value = 0;
    if (!absl::SimpleAtod(Text(column), &value) || !(value > 0) || !std::isfinite(value)) {
      return Wrong(column, "a number above 0");
    }
    return value;
  }

 private:
  const Columns& columns_;
  const std::vector<std::string>& cells_;
  const int line_;
};

absl::StatusOr<StudyRun> ParseRun(const RowReader& row) {
  StudyRun run;
  run.recipe = row.Text("recipe");
  if (run.recipe.empty()) return row.Wrong("recipe", "a name");
  run.name = row.Text("name");
  TY_ASSIGN_OR_RETURN(run.parameters, row.Positive("parameters"));
  TY_ASSIGN_OR_RETURN(run.tokens, row.Positive("tokens"));
  TY_ASSIGN_OR_RETURN(run.loss, row.Positive("loss"));
  const std::string seed = row.Text("seed"), acts_on = row.Text("acts_on"), bits = row.Text("bits");
  if (!seed.empty() && !absl::SimpleAtoi(seed, &run.seed)) return row.Wrong("seed", "a whole number");
  if (acts_on == "tokens") {
    run.acts_on = ActsOn::kTokens;
  } else if (acts_on == "both") {
    run.acts_on = ActsOn::kBoth;
  } else if (!acts_on.empty() && acts_on != "-" && acts_on != "parameters") {
    return row.Wrong("acts_on", "parameters, tokens or both");
  }
  if (!bits.empty() && bits != "-" && (!absl::SimpleAtod(bits, &run.bits) || !(run.bits >= 0) || run.bits > 64)) {
    return row.Wrong("bits", "a number in [0, 64]");
  }
  return run;
}

}  // namespace

absl::StatusOr<std::vector<StudyRun>> ParseRuns(absl::string_view text) {
  std::vector<StudyRun> runs;
  std::map<std::string, StudyRun> first_of;
  Columns columns;
  int line = 0;
  for (absl::string_view row_text : absl::StrSplit(text, '\n')) {
    ++line;
    const absl::string_view trimmed = absl::StripAsciiWhitespace(row_text);
    if (trimmed.empty() || trimmed[0] == '#') continue;
    std::vector<std::string> cells = absl::StrSplit(row_text, '\t');
    for (std::string& cell : cells) absl::StripAsciiWhitespace(&cell);
    if (columns.empty()) {
      TY_ASSIGN_OR_RETURN(columns, ParseHeader(cells, line));
      continue;
    }
    if (cells.size() != columns.size()) {
      return absl::InvalidArgumentError(
          absl::StrCat("line ", line, ": ", cells.size(), " columns, the first line names ", columns.size()));
    }
    TY_ASSIGN_OR_RETURN(StudyRun run, ParseRun(RowReader(columns, cells, line)));
    const StudyRun& first = first_of.emplace(run.recipe, run).first->second;
    if (run.acts_on != first.acts_on || run.bits != first.bits) {
      return absl::InvalidArgumentError(
          absl::StrCat("line ", line, ": acts_on or bits differ from those of an earlier line of ", run.recipe));
    }
    runs.push_back(std::move(run));
    if (runs.size() > kMaxRuns) return absl::InvalidArgumentError(absl::StrCat("more than ", kMaxRuns, " runs"));
  }
  if (runs.empty()) return absl::InvalidArgumentError("the table has no runs");
  return runs;
}

std::string FormatRuns(const std::vector<StudyRun>& runs) {
  std::string text = "recipe\tname\tparameters\ttokens\tloss\tseed\tacts_on\tbits\n";
  for (const StudyRun& run : runs) {
    absl::StrAppend(&text, run.recipe, "\t", run.name, "\t");
    absl::StrAppendFormat(&text, "%.17g\t%.17g\t%.17g\t%d\t", run.parameters, run.tokens, run.loss, run.seed);
    absl::StrAppend(&text, ActsOnName(run.acts_on), "\t");
    absl::StrAppendFormat(&text, "%.17g\n", run.bits);
  }
  return text;
}

std::string ActsOnName(ActsOn acts_on) {
  switch (acts_on) {
    case ActsOn::kParameters:
      return "parameters";
    case ActsOn::kTokens:
      return "tokens";
    case ActsOn::kBoth:
      return "both";
  }
  return "parameters";
}

}  // namespace trainyard::scaling
