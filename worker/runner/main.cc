// trainyard-runner: one rank of a job. Started by the worker daemon, never by hand.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdint>
#include <cstdio>

#include "base/log.h"
#include "base/version.h"
#include "worker/jobs/make_job.h"
#include "worker/runner/runner.h"

int main(int argc, char** argv) {
  int link_fd = -1;
  trainyard::runner::RankOptions options;
  CLI::App app("Trainyard's runner: one rank of a job. The worker daemon starts it.");
  app.set_version_flag("--version", std::string("trainyard-runner ") + trainyard::kVersion);
  app.add_option("--link_fd", link_fd, "Inherited socket to the daemon")->required()->check(CLI::NonNegativeNumber);
  app.add_option("--cache_dir", options.cache_dir, "Folder of this host's copies of files");
  app.add_option("--cache_bytes", options.cache_bytes, "What they may take; 0: the cache is not used")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 60))
      ->needs("--cache_dir");
  CLI11_PARSE(app, argc, argv);
  trainyard::InitLog("runner");
  const int code = trainyard::runner::RunRank(trainyard::UniqueFd(link_fd), options, trainyard::jobs::MakeJob);
  std::fflush(nullptr);
  _exit(code);
}
