#include "worker/jobs/qoda_gan_setup.h"

#include <optional>

#include "base/file.h"
#include "base/overloaded.h"
#include "base/status_macros.h"
#include "worker/data/images/image_files.h"
#include "worker/data/images/image_set.h"
#include "worker/data/images/mixture.h"

namespace trainyard::jobs {
namespace {

// A sample within so many standard deviations of its mode is of high quality (Srivastava et al., NeurIPS 2017).
constexpr double kModeDeviations = 3;

data::GaussianMixture MixtureOf(const spec::GanMixtureOptions& mixture) {
  return mixture.layout == spec::MixtureLayout::kRing ? data::GaussianMixture::Ring(mixture.spacing, mixture.stddev)
                                                      : data::GaussianMixture::Grid(mixture.spacing, mixture.stddev);
}

bool HasLabels(const spec::GanDataOptions& data) {
  const auto* idx = std::get_if<spec::GanIdxOptions>(&data);
  return std::holds_alternative<spec::GanCifarOptions>(data) || (idx != nullptr && !idx->labels.empty());
}

// Null for synthetic data.
std::optional<data::ImageFiles> FilesOf(const spec::GanDataOptions& data, const std::string& root) {
  using Files = std::optional<data::ImageFiles>;
  return std::visit(Overloaded{
                        [&](const spec::GanIdxOptions& idx) -> Files {
                          return data::ImageFiles{.format = data::ImageFiles::Format::kIdx,
                                                  .paths = {JoinPath(root, idx.images)},
                                                  .labels_path = idx.labels.empty() ? "" : JoinPath(root, idx.labels)};
                        },
                        [&](const spec::GanCifarOptions& cifar) -> Files {
                          data::ImageFiles files;
                          files.format = cifar.classes == 10 ? data::ImageFiles::Format::kCifar10
                                                             : data::ImageFiles::Format::kCifar100;
                          for (const std::string& file : cifar.files) files.paths.push_back(JoinPath(root, file));
                          return files;
                        },
                        [&](const spec::GanPngOptions& png) -> Files {
                          return data::ImageFiles{.format = data::ImageFiles::Format::kPngFolder,
                                                  .paths = {JoinPath(root, png.path)},
                                                  .channels = png.channels};
                        },
                        [](const spec::GanMixtureOptions&) -> Files { return std::nullopt; },
                        [](const spec::GanGaussianOptions&) -> Files { return std::nullopt; },
                    },
                    data);
}

}  // namespace

std::vector<int64_t> SampleShapeOf(const spec::GanDataOptions& data) {
  using Shape = std::vector<int64_t>;
  return std::visit(Overloaded{
                        [](const spec::GanIdxOptions&) -> Shape {
                          return {1, data::kImageExtent, data::kImageExtent};
                        },
                        [](const spec::GanCifarOptions&) -> Shape {
                          return {3, data::kImageExtent, data::kImageExtent};
                        },
                        [](const spec::GanPngOptions& png) -> Shape {
                          return {png.channels, data::kImageExtent, data::kImageExtent};
                        },
                        [](const spec::GanMixtureOptions&) -> Shape { return {2}; },
                        [](const spec::GanGaussianOptions& gaussian) -> Shape {
                          return {static_cast<int64_t>(gaussian.mean.size())};
                        },
                    },
                    data);
}

absl::StatusOr<std::unique_ptr<data::SampleSource>> OpenSamples(const spec::GanDataOptions& data,
                                                                const std::string& data_root) {
  if (const std::optional<data::ImageFiles> files = FilesOf(data, data_root)) {
    TY_ASSIGN_OR_RETURN(data::ImageSet images, OpenImages(*files));
    return std::make_unique<data::ImageSet>(std::move(images));
  }
  if (const auto* mixture = std::get_if<spec::GanMixtureOptions>(&data)) {
    return std::make_unique<data::GaussianMixture>(MixtureOf(*mixture));
  }
  const auto& gaussian = std::get<spec::GanGaussianOptions>(data);
  return std::make_unique<data::GaussianMixture>(data::GaussianMixture::Gaussian(gaussian.mean, gaussian.stddev));
}

QodaGanSetup SetUpQodaGan(const spec::JobOptions& options, int rank, int world_size) {
  const auto& gan = std::get<spec::QodaGanOptions>(options.kind);
  QodaGanSetup setup;
  setup.trainer.gan = gan;
  setup.trainer.communication = options.communication;
  setup.trainer.sample_shape = SampleShapeOf(gan.data);
  setup.trainer.rank = rank;
  setup.trainer.world_size = world_size;
  setup.trainer.threads = options.world.threads_per_rank;
  if (options.world.slot_type == spec::SlotType::kGpu) setup.trainer.device = kernels::Device::kCuda;
  setup.trainer.seed = options.seed.value_or(0);

  setup.evaluator.gan = gan;
  setup.evaluator.sample_shape = setup.trainer.sample_shape;
  if (const auto* mixture = std::get_if<spec::GanMixtureOptions>(&gan.data)) {
    setup.evaluator.centers = MixtureOf(*mixture).centers();
    setup.evaluator.mode_radius = kModeDeviations * mixture->stddev;
  }
  setup.evaluator.has_labelled_images = HasLabels(gan.data);
  setup.evaluator.rank = rank;
  setup.evaluator.world_size = world_size;
  setup.evaluator.threads = setup.trainer.threads;
  setup.evaluator.device = setup.trainer.device;
  setup.evaluator.seed = setup.trainer.seed;
  return setup;
}

}  // namespace trainyard::jobs
