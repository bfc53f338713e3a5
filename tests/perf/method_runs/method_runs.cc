// method_runs JOB.yaml VARIANTS --data DATASET [--seeds 3] [--parallel 2] [--steps N] [--only NAME,...] [--results
// FILE]
//
// Trains the job once for every variant and seed, in this process and without a service, and prints a table of their
// evaluation losses: mean, standard deviation over the seeds, difference to the first variant. A variant is a line of
// the file VARIANTS,
//
//   name   path=value ; path=value ...      (as `trainyard submit --set`; # begins a comment)
//
// Runs are the jobs' own code on one rank, so what is compared is what users get. Each finished run is a line of
// FILE; a run whose job is there already is not made again, so a broken-off measurement goes on where it was.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/mutex.h"
#include "base/status_macros.h"
#include "base/testing/temp_dir.h"
#include "client/yaml_spec.h"
#include "proto/spec/job_options.h"
#include "worker/jobs/testing/job_rank.h"

namespace trainyard {
namespace {

struct Flags {
  std::string job, variants, data, results;
  int seeds = 3;
  int parallel = 2;
  int steps = 0;
  std::vector<std::string> only;
};

struct Variant {
  std::string name;
  std::vector<std::string> overrides;
};

struct Run {
  size_t variant = 0;
  std::string digest;
  spec::JobOptions options;
};

struct Outcome {
  double evaluation_loss = NAN;  // NaN: the run failed
  double seconds = 0;
  std::string error;
};

absl::StatusOr<std::vector<Variant>> ReadVariants(const Flags& flags) {
  TY_ASSIGN_OR_RETURN(const std::string text, ReadFile(flags.variants));
  std::vector<Variant> variants;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    line = absl::StripAsciiWhitespace(line.substr(0, line.find('#')));
    if (line.empty()) continue;
    const size_t end = std::min(line.find(' '), line.size());
    Variant variant{std::string(line.substr(0, end)), {}};
    for (absl::string_view part : absl::StrSplit(line.substr(end), " ; ")) {
      part = absl::StripAsciiWhitespace(part);
      if (!part.empty()) variant.overrides.emplace_back(part);
    }
    const bool is_wanted =
        flags.only.empty() || std::find(flags.only.begin(), flags.only.end(), variant.name) != flags.only.end();
    if (is_wanted) variants.push_back(std::move(variant));
  }
  if (variants.empty()) return absl::InvalidArgumentError(absl::StrCat(flags.variants, ": no variant to run"));
  return variants;
}

absl::StatusOr<Run> MakeRun(const Flags& flags, const Variant& variant, size_t number, int seed) {
  std::vector<std::string> overrides = variant.overrides;
  overrides.push_back(absl::StrCat("seed=", seed));
  overrides.push_back(absl::StrCat("data.path=", flags.data));
  if (flags.steps > 0) overrides.push_back(absl::StrCat("training.steps=", flags.steps));
  TY_ASSIGN_OR_RETURN(const std::vector<client::LoadedJob> jobs, client::LoadJobFile(flags.job, overrides));
  if (jobs.size() != 1) return absl::InvalidArgumentError(absl::StrCat(flags.job, ": not one job"));
  TY_ASSIGN_OR_RETURN(spec::JobOptions options, spec::ParseJob(jobs[0].spec));
  return Run{number, spec::SpecDigest(jobs[0].spec), std::move(options)};
}

absl::StatusOr<double> Train(const spec::JobOptions& options) {
  const TempDir directory;
  jobs::JobRank rank(options, directory.path());
  TY_RETURN_IF_ERROR(rank.job->Prepare(rank.context));
  TY_RETURN_IF_ERROR(rank.job->Initialize());
  for (bool done = false; !done;) {
    TY_ASSIGN_OR_RETURN(const jobs::UnitResult unit, rank.job->RunUnit());
    done = unit.done;
  }
  TY_ASSIGN_OR_RETURN(const v1::JobResult result, rank.job->Finish());
  const auto loss = result.values().find("evaluation_loss");
  if (loss == result.values().end()) return absl::NotFoundError("the data set has no validation windows");
  return loss->second;
}

// Lines "digest <tab> loss <tab> seconds <tab> name".
class Results {
 public:
  explicit Results(const std::string& path) : path_(path) {
    for (absl::string_view line : absl::StrSplit(ReadFile(path).value_or(""), '\n')) {
      const std::vector<std::string> fields = absl::StrSplit(line, '\t');
      Outcome outcome;
      if (fields.size() == 4 && absl::SimpleAtod(fields[1], &outcome.evaluation_loss) &&
          absl::SimpleAtod(fields[2], &outcome.seconds)) {
        outcomes_[fields[0]] = outcome;
      }
    }
  }

  bool Has(const std::string& digest) const {
    MutexLock lock(&mutex_);
    return outcomes_.count(digest) > 0;
  }
  Outcome Of(const std::string& digest) const {
    MutexLock lock(&mutex_);
    return outcomes_.at(digest);
  }
  void Add(const std::string& digest, const std::string& name, const Outcome& outcome) {
    MutexLock lock(&mutex_);
    outcomes_[digest] = outcome;
    std::cerr << absl::StrFormat(
        "%-28s %s  %.0f s\n", name,
        outcome.error.empty() ? absl::StrFormat("%.4f", outcome.evaluation_loss) : outcome.error, outcome.seconds);
    if (path_.empty() || !outcome.error.empty()) return;
    std::ofstream(path_, std::ios::app) << absl::StrFormat("%s\t%.6f\t%.1f\t%s\n", digest, outcome.evaluation_loss,
                                                           outcome.seconds, name);
  }

 private:
  const std::string path_;
  mutable Mutex mutex_;
  std::map<std::string, Outcome> outcomes_ ABSL_GUARDED_BY(mutex_);
};

void RunAll(const Flags& flags, const std::vector<Variant>& variants, const std::vector<Run>& runs, Results& results) {
  Mutex mutex;
  size_t next = 0;
  const auto work = [&] {
    while (true) {
      const Run* run = nullptr;
      {
        MutexLock lock(&mutex);
        while (next < runs.size() && results.Has(runs[next].digest)) ++next;
        if (next == runs.size()) return;
        run = &runs[next++];
      }
      const absl::Duration begin = RealClock()->Monotonic();
      const absl::StatusOr<double> loss = Train(run->options);
      Outcome outcome;
      outcome.seconds = absl::ToDoubleSeconds(RealClock()->Monotonic() - begin);
      if (loss.ok()) outcome.evaluation_loss = *loss;
      outcome.error = loss.ok() ? "" : std::string(loss.status().message());
      results.Add(run->digest, absl::StrCat(variants[run->variant].name, "/", *run->options.seed), outcome);
    }
  };
  std::vector<std::thread> threads;
  for (int i = 0; i < flags.parallel; ++i) threads.emplace_back(work);
  for (std::thread& thread : threads) thread.join();
}

double MeanOf(const std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) sum += value;
  return sum / static_cast<double>(values.size());
}

double StandardDeviationOf(const std::vector<double>& values) {
  double squares = 0;
  for (const double value : values) squares += std::pow(value - MeanOf(values), 2);
  return values.size() < 2 ? 0 : std::sqrt(squares / static_cast<double>(values.size() - 1));
}

void PrintTable(const std::vector<Variant>& variants, const std::vector<Run>& runs, const Results& results) {
  std::cout << "| variant | loss | seeds' deviation | to the first | each seed |\n|---|---|---|---|---|\n";
  double first = NAN;
  for (size_t i = 0; i < variants.size(); ++i) {
    std::vector<double> losses;
    std::string each;
    for (const Run& run : runs) {
      if (run.variant != i) continue;
      losses.push_back(results.Of(run.digest).evaluation_loss);
      absl::StrAppend(&each, each.empty() ? "" : " ", absl::StrFormat("%.4f", losses.back()));
    }
    if (i == 0) first = MeanOf(losses);
    std::cout << absl::StrFormat("| %s | %.4f | %.4f | %+.4f | %s |\n", variants[i].name, MeanOf(losses),
                                 StandardDeviationOf(losses), MeanOf(losses) - first, each);
  }
}

absl::Status Main(const Flags& flags) {
  TY_ASSIGN_OR_RETURN(const std::vector<Variant> variants, ReadVariants(flags));
  std::vector<Run> runs;  // all variants of a seed before the next, so that a broken-off table compares
  for (int seed = 1; seed <= flags.seeds; ++seed) {
    for (size_t i = 0; i < variants.size(); ++i) {
      absl::StatusOr<Run> run = MakeRun(flags, variants[i], i, seed);
      if (!run.ok()) {
        return absl::InvalidArgumentError(absl::StrCat(variants[i].name, ": ", run.status().message()));
      }
      runs.push_back(*std::move(run));
    }
  }
  Results results(flags.results);
  RunAll(flags, variants, runs, results);
  PrintTable(variants, runs, results);
  return absl::OkStatus();
}

}  // namespace
}  // namespace trainyard

int main(int argc, char** argv) {
  trainyard::Flags flags;
  CLI::App app("Compares training methods over seeds");
  app.add_option("job", flags.job, "Job file that all runs start from")->required();
  app.add_option("variants", flags.variants, "What they change")->required();
  app.add_option("--data", flags.data, "Data set folder made by `trainyard data tokenize`")->required();
  app.add_option("--seeds", flags.seeds)->check(CLI::Range(1, 1000))->capture_default_str();
  app.add_option("--parallel", flags.parallel, "Runs at a time")->check(CLI::Range(1, 1024))->capture_default_str();
  app.add_option("--steps", flags.steps, "Instead of the job's");
  app.add_option("--only", flags.only, "Names of the variants to run")->delimiter(',');
  app.add_option("--results", flags.results, "File that keeps what is done");
  CLI11_PARSE(app, argc, argv);
  const absl::Status status = trainyard::Main(flags);
  if (!status.ok()) std::cerr << "error: " << status.message() << "\n";
  return status.ok() ? 0 : 1;
}
