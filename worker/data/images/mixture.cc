#include "worker/data/images/mixture.h"

#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "kernels/core/philox.h"

namespace trainyard::data {
namespace {

// Micro-step numbers of the Philox keys: training and reference samples never meet.
constexpr uint16_t kTraining = 0;
constexpr uint16_t kReference = 1;
// References are the same for all runs.
constexpr uint64_t kReferenceSeed = 0;

}  // namespace

GaussianMixture::GaussianMixture(std::vector<std::vector<double>> centers, double stddev)
    : centers_(std::move(centers)),
      stddev_(stddev),
      dim_(centers_.empty() ? 0 : static_cast<int64_t>(centers_.front().size())) {
  TY_CHECK_GE(dim_, 1);
  TY_CHECK_GT(stddev, 0.0);
  for (const std::vector<double>& center : centers_) TY_CHECK_EQ(center.size(), static_cast<size_t>(dim_));
}

GaussianMixture GaussianMixture::Ring(double radius, double stddev) {
  std::vector<std::vector<double>> centers;
  for (int i = 0; i < 8; ++i) {
    const double angle = i * 0.7853981633974483;  // pi / 4
    centers.push_back({radius * std::cos(angle), radius * std::sin(angle)});
  }
  return GaussianMixture(std::move(centers), stddev);
}

GaussianMixture GaussianMixture::Grid(double spacing, double stddev) {
  std::vector<std::vector<double>> centers;
  for (int y = -2; y <= 2; ++y) {
    for (int x = -2; x <= 2; ++x) centers.push_back({x * spacing, y * spacing});
  }
  return GaussianMixture(std::move(centers), stddev);
}

GaussianMixture GaussianMixture::Gaussian(std::vector<double> mean, double stddev) {
  return GaussianMixture({std::move(mean)}, stddev);
}

std::string GaussianMixture::Fingerprint() const {
  std::string text = absl::StrCat("mixture ", stddev_);
  for (const std::vector<double>& center : centers_) {
    for (double value : center) absl::StrAppend(&text, " ", value);
  }
  return text;
}

void GaussianMixture::DrawFrom(uint64_t seed, int64_t sample, uint16_t use, float* values, int32_t* label) const {
  // Element numbers of a key reach to 2^34, so sample numbers go into step and tensor; of each, element 0 decides the
  // component, in a block of its own.
  const auto number = static_cast<uint64_t>(sample);
  const kernels::PhiloxKey key = {.seed = seed,
                                  .step = static_cast<uint32_t>(number),
                                  .micro_step = use,
                                  .purpose = kernels::kRandomImage,
                                  .tensor = static_cast<uint32_t>(number >> 32)};
  const uint64_t word = kernels::RandomWord(key, 0);
  const auto component = static_cast<size_t>((word * centers_.size()) >> 32);
  constexpr uint64_t kFirstNormal = 4;
  for (int64_t i = 0; i < dim_; ++i) {
    const auto noise = static_cast<double>(kernels::RandomNormal(key, kFirstNormal + static_cast<uint64_t>(i)));
    values[i] = static_cast<float>(centers_[component][static_cast<size_t>(i)] + stddev_ * noise);
  }
  if (label != nullptr) *label = static_cast<int32_t>(component);
}

void GaussianMixture::Draw(uint64_t seed, int64_t sample, float* values, int32_t* label) const {
  DrawFrom(seed, sample, kTraining, values, label);
}

void GaussianMixture::Reference(int64_t index, float* values, int32_t* label) const {
  DrawFrom(kReferenceSeed, index, kReference, values, label);
}

}  // namespace trainyard::data
