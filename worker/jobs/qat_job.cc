#include "worker/jobs/qat_job.h"

#include <variant>

#include "base/file.h"
#include "base/status_macros.h"
#include "worker/jobs/language_model_job.h"
#include "worker/model/packed_model.h"

namespace trainyard::jobs {
namespace {

class QatJob final : public LanguageModelJob {
 public:
  explicit QatJob(const spec::JobOptions& options)
      : LanguageModelJob(options, std::get<spec::QatOptions>(options.kind).samples) {}

 private:
  absl::Status ExportMore(const std::string& data_directory, v1::JobResult* result) override {
    const spec::LinearOptions& linear = options().training.linear;
    const auto* const quest = std::get_if<spec::LinearQuest>(&linear.scheme);
    if (quest == nullptr || quest->weight_grid == spec::LinearQuest::Grid::kNone) return absl::OkStatus();
    const std::string directory = JoinPath(place().attempt_dir, "packed");
    TY_ASSIGN_OR_RETURN(
        const int64_t bytes,
        ExportPackedModel(config(), *quest, linear.exclude, trainer().DecodedWeights().all,
                          {.directory = directory, .tokenizer_source = data_directory}, trainer().stream()));
    AddArtifact("packed", directory, bytes, result);
    return absl::OkStatus();
  }
};

}  // namespace

std::unique_ptr<Job> MakeQatJob(const spec::JobOptions& options) {
  return std::make_unique<QatJob>(options);
}

}  // namespace trainyard::jobs
