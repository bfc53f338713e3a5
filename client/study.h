// `trainyard study`: fit a scaling law to a table of runs, or show what a study job found.
#pragma once

#include <functional>
#include <string>

#include "client/context.h"
#include "scaling/report.h"

namespace CLI {
class App;
}

namespace trainyard::client {

// Adds the command with its subcommands fit and report. `select` is called with what the flags chose.
using SelectCommand = std::function<void(std::function<int(Context&)> run, bool needs_server)>;
void AddStudyCommand(CLI::App& app, const SelectCommand& select);

// The report as tables: efficiencies, law, what was left out, predictions.
std::string StudyTables(const scaling::StudyReport& report);

// Losses against N for each recipe, and all residuals, as terminal plots of so many columns.
std::string StudyPlots(const scaling::StudyReport& report, int columns);

// What each recipe reaches within one budget, at the speeds that the Quartet paper assumes for FP4 against FP8: forward
// twice as fast for recipes that compress it, backward likewise.
std::string BudgetTable(const scaling::StudyFit& fit, double parameters, double tokens);

}  // namespace trainyard::client
