// Seconds and quality of the features on Fashion-MNIST (Debian package dataset-fashion-mnist). `fid_train_test`:
// distance of 5000 training from 5000 test images, what a perfect generator would get; `fid_noise`: of as many images
// of noise. Argument: threads.
#include "base/check.h"
#include "kernels/testing/bench.h"
#include "kernels/testing/host_tensor.h"
#include "worker/data/images/image_files.h"
#include "worker/train/gan_metrics/feature_classifier.h"
#include "worker/train/gan_metrics/frechet_distance.h"
#include "worker/train/gan_metrics/sliced_wasserstein.h"

namespace trainyard::train {
namespace {

using kernels::DType;
using kernels::testing::HostTensor;

data::ImageSet Open(const std::string& part) {
  const std::string prefix = "/usr/share/datasets/fashion-mnist/" + part;
  return data::OpenImages(
             {.paths = {prefix + "-images-idx3-ubyte.gz"}, .labels_path = prefix + "-labels-idx1-ubyte.gz"})
      .value();
}

void BM_FashionMnist(benchmark::State& state) {
  constexpr int64_t kImages = 5000;
  const data::ImageSet train = Open("train");
  const data::ImageSet test = Open("t10k");
  kernels::Stream stream(static_cast<int>(state.range(0)));
  std::unique_ptr<FeatureClassifier> classifier;
  for (auto _ : state) {
    classifier = std::move(FeatureClassifier::Train({.threads = stream.threads()}, train, stream).value());
  }
  state.counters["accuracy"] = classifier->Accuracy(test, test.count(), stream);
  const auto features = [&](const HostTensor& images) {
    HostTensor values(DType::kF32, {kImages, classifier->feature_count()});
    classifier->Features(images, values, stream);
    return values;
  };
  const HostTensor of_train(DType::kF32, {kImages, 1, 32, 32});
  const HostTensor of_test(DType::kF32, {kImages, 1, 32, 32});
  train.FillReference(0, of_train);
  test.FillReference(0, of_test);
  const HostTensor noise = HostTensor::Normal(DType::kF32, {kImages, 1, 32, 32}, 1, 0.5);
  state.counters["fid_train_test"] = FrechetDistance(features(of_train), features(of_test)).value();
  state.counters["fid_noise"] = FrechetDistance(features(of_train), features(noise)).value();
  state.counters["sw_train_test"] = SlicedWasserstein(of_train, of_test, 128, 1, stream);
  state.counters["sw_noise"] = SlicedWasserstein(of_train, noise, 128, 1, stream);
}
BENCHMARK(BM_FashionMnist)->Arg(1)->Arg(2)->UseRealTime()->Unit(benchmark::kSecond);

}  // namespace
}  // namespace trainyard::train
