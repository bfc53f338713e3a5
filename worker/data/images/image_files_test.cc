#include "worker/data/images/image_files.h"

#include <zlib.h>

#include <cmath>
#include <fstream>

#include "base/file.h"
#include "base/testing/status_matchers.h"
#include "base/testing/temp_dir.h"
#include "gtest/gtest.h"
#include "kernels/testing/host_tensor.h"
#include "worker/data/images/gunzip.h"
#include "worker/data/images/png_grid.h"

namespace trainyard::data {
namespace {

using kernels::DType;
using kernels::testing::HostTensor;
using ::testing::AllOf;
using ::testing::HasSubstr;

std::string BigEndian(uint32_t value) {
  return {static_cast<char>(value >> 24), static_cast<char>(value >> 16), static_cast<char>(value >> 8),
          static_cast<char>(value)};
}

std::string Idx(const std::vector<uint32_t>& shape, const std::string& values) {
  std::string content = {0, 0, 8, static_cast<char>(shape.size())};
  for (uint32_t extent : shape) content += BigEndian(extent);
  return content + values;
}

std::string Ramp(size_t size) {
  std::string values;
  for (size_t i = 0; i < size; ++i) values.push_back(static_cast<char>(i * 7));
  return values;
}

std::string Gzip(const std::string& content) {
  z_stream stream = {};
  EXPECT_EQ(deflateInit2(&stream, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
  std::string packed(content.size() + 256, '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(content.data()));
  stream.avail_in = static_cast<uInt>(content.size());
  stream.next_out = reinterpret_cast<Bytef*>(packed.data());
  stream.avail_out = static_cast<uInt>(packed.size());
  EXPECT_EQ(deflate(&stream, Z_FINISH), Z_STREAM_END);
  packed.resize(stream.total_out);
  deflateEnd(&stream);
  return packed;
}

class ImageFilesTest : public ::testing::Test {
 protected:
  std::string Write(const std::string& name, const std::string& content) {
    const std::string path = dir_.Join(name);
    std::ofstream(path, std::ios::binary) << content;  // thousands of files: not synced
    return path;
  }
  // Damaged content must be refused with a code of ours and the file's name; never accepted silently or crash.
  template <typename Read>
  void ExpectDamageIsSeen(const std::string& name, const std::string& content, const Read& read) {
    for (size_t length = 0; length < content.size(); length += 1 + length / 16) {
      const std::string path = Write(name, content.substr(0, length));
      const absl::Status status = GetStatus(read(path));
      EXPECT_TRUE(absl::IsDataLoss(status) || absl::IsInvalidArgument(status)) << length << ": " << status;
      EXPECT_THAT(std::string(status.message()), HasSubstr(path));
    }
    // Flipped bytes may give a valid file; they must not crash. Sanitizers watch.
    for (size_t at = 0; at < content.size(); at += 1 + at / 8) {
      for (const char mask : {'\x01', '\x80', '\xff'}) {
        std::string damaged = content;
        damaged[at] = static_cast<char>(damaged[at] ^ mask);
        const absl::Status status = GetStatus(read(Write(name, damaged)));
        EXPECT_TRUE(status.ok() || absl::IsDataLoss(status) || absl::IsInvalidArgument(status)) << at << ": " << status;
      }
    }
  }

  TempDir dir_;
};

TEST_F(ImageFilesTest, IdxPlainAndGzipGiveTheSame) {
  const std::string pixels = Ramp(3 * 5 * 4);
  const std::string labels = Idx({3}, {2, 0, 4});
  const std::string plain = Write("a", Idx({3, 5, 4}, pixels));
  const std::string packed = Write("b", Gzip(Idx({3, 5, 4}, pixels)));
  ASSERT_OK_AND_ASSIGN(const RawImages a, ReadIdx(plain, Write("labels", labels)));
  ASSERT_OK_AND_ASSIGN(const RawImages b, ReadIdx(packed, Write("labels.gz", Gzip(labels))));
  EXPECT_EQ(a.count, 3);
  EXPECT_EQ(a.height, 5);
  EXPECT_EQ(a.width, 4);
  EXPECT_EQ(std::string(a.pixels.begin(), a.pixels.end()), pixels);
  EXPECT_EQ(a.labels, (std::vector<int32_t>{2, 0, 4}));
  EXPECT_EQ(a.class_count, 5);
  EXPECT_EQ(b.pixels, a.pixels);
  EXPECT_EQ(b.labels, a.labels);
  ASSERT_OK_AND_ASSIGN(const RawImages unlabelled, ReadIdx(plain, ""));
  EXPECT_EQ(unlabelled.class_count, 0);
}

TEST_F(ImageFilesTest, IdxInSeveralGzipMembers) {
  const std::string content = Idx({1, 5, 4}, Ramp(20));
  const std::string path = Write("a", Gzip(content.substr(0, 11)) + Gzip(content.substr(11)));
  ASSERT_OK_AND_ASSIGN(const RawImages images, ReadIdx(path, ""));
  EXPECT_EQ(std::string(images.pixels.begin(), images.pixels.end()), Ramp(20));
}

TEST_F(ImageFilesTest, IdxRefusals) {
  const std::string images = Write("images", Idx({2, 4, 4}, Ramp(32)));
  EXPECT_THAT(ReadIdx(dir_.Join("none"), ""), StatusIs(absl::StatusCode::kNotFound, HasSubstr("none")));
  EXPECT_THAT(ReadIdx(Write("text", "hello world, no images"), ""),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("not an IDX file")));
  EXPECT_THAT(ReadIdx(Write("labels", Idx({2}, "ab")), ""),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("1 dimensions")));
  EXPECT_THAT(ReadIdx(Write("big", Idx({1, 33, 4}, Ramp(132))), ""),
              StatusIs(absl::StatusCode::kInvalidArgument, AllOf(HasSubstr("big"), HasSubstr("4 x 33"))));
  EXPECT_THAT(ReadIdx(Write("empty", Idx({0, 28, 28}, "")), ""),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("no images")));
  EXPECT_THAT(ReadIdx(images, Write("three", Idx({3}, "abc"))),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("3 labels for 2 images")));
  // A product of extents that wraps round to the right number.
  EXPECT_THAT(ReadIdx(Write("wrap", Idx({0x80000000u, 0x80000000u, 4}, "")), ""),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("wrap")));
  EXPECT_THAT(ReadIdx(Write("longer", Idx({1, 2, 2}, Ramp(5))), ""),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("5 bytes after the header, which says 4")));
}

TEST_F(ImageFilesTest, DamagedIdx) {
  const auto read = [](const std::string& path) { return ReadIdx(path, ""); };
  ExpectDamageIsSeen("plain", Idx({2, 6, 5}, Ramp(60)), read);
  ExpectDamageIsSeen("packed", Gzip(Idx({20, 16, 16}, Ramp(5120))), read);
}

// A bit flipped inside the compressed data is found by the checksum, if by nothing before.
TEST_F(ImageFilesTest, GzipChecksumIsChecked) {
  std::string packed = Gzip(Idx({1, 4, 4}, Ramp(16)));
  packed[packed.size() - 6] = static_cast<char>(packed[packed.size() - 6] ^ 1);
  EXPECT_THAT(ReadIdx(Write("a", packed), ""), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("gzip")));
}

// A small file may stand for more than there is memory for.
TEST_F(ImageFilesTest, GzipContentIsBounded) {
  const std::string zeros(10 << 20, '\0');
  const std::string path = Write("bomb", Gzip(zeros));
  ASSERT_OK_AND_ASSIGN(const std::string content, ReadMaybeGzip(path, 10 << 20));
  EXPECT_EQ(content, zeros);
  EXPECT_THAT(ReadMaybeGzip(path, (10 << 20) - 1),
              StatusIs(absl::StatusCode::kInvalidArgument, AllOf(HasSubstr("bomb"), HasSubstr("longer than"))));
  EXPECT_THAT(ReadMaybeGzip(Write("plain", "12345"), 4),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("longer than 4 bytes")));
}

TEST_F(ImageFilesTest, Cifar) {
  const std::string first = Ramp(3072);
  const std::string second(3072, 'x');
  const std::string a = Write("a", "\x03" + first + "\x09" + second);
  const std::string b = Write("b", "\x01" + second);
  ASSERT_OK_AND_ASSIGN(const RawImages ten, ReadCifar({a, b}, 10));
  EXPECT_EQ(ten.count, 3);
  EXPECT_EQ(ten.labels, (std::vector<int32_t>{3, 9, 1}));
  EXPECT_EQ(std::string(ten.pixels.begin(), ten.pixels.begin() + 3072), first);
  const std::string c = Write("c", "\x05\x63" + first);
  ASSERT_OK_AND_ASSIGN(const RawImages hundred, ReadCifar({c}, 100));
  EXPECT_EQ(hundred.labels, (std::vector<int32_t>{99}));
  EXPECT_THAT(ReadCifar({Write("d", "\x0a" + first)}, 10),
              StatusIs(absl::StatusCode::kInvalidArgument, AllOf(HasSubstr("label 10 in record 0"), HasSubstr("/d"))));
  EXPECT_THAT(ReadCifar({a, c}, 10), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("multiple")));
  ExpectDamageIsSeen("e", "\x03" + first, [](const std::string& path) { return ReadCifar({path}, 10); });
}

class PngTest : public ImageFilesTest {
 protected:
  // An image whose bytes are Ramp, as a PNG file.
  std::string Png(int64_t channels, int64_t height, int64_t width) {
    const std::string ramp = Ramp(static_cast<size_t>(channels * height * width));
    const HostTensor image(DType::kF32, {1, channels, height, width});
    for (size_t i = 0; i < ramp.size(); ++i) {
      image.as<float>()[i] = static_cast<float>(static_cast<uint8_t>(ramp[i])) / 127.5f - 1.0f;
    }
    return EncodePngGrid(image, 1).value();
  }
};

TEST_F(PngTest, WrittenImagesAreReadBack) {
  for (const int channels : {1, 3}) {
    const std::string folder = dir_.Join("c" + std::to_string(channels));
    ASSERT_OK(MakeDirs(folder));
    ASSERT_OK(WriteFileAtomic(JoinPath(folder, "b.png"), Png(channels, 9, 11)));
    ASSERT_OK(WriteFileAtomic(JoinPath(folder, "a.PNG"), Png(channels, 9, 11)));
    ASSERT_OK(WriteFileAtomic(JoinPath(folder, "readme.txt"), "no image"));
    ASSERT_OK_AND_ASSIGN(const RawImages images, ReadPngFolder(folder, channels));
    EXPECT_EQ(images.count, 2);
    EXPECT_EQ(images.class_count, 0);
    const std::string ramp = Ramp(static_cast<size_t>(channels) * 99);
    EXPECT_EQ(std::string(images.pixels.begin(), images.pixels.end()), ramp + ramp);
  }
}

TEST_F(PngTest, SubfoldersAreClasses) {
  for (const char* name : {"cats", "dogs"}) {
    ASSERT_OK(MakeDirs(dir_.Join(name)));
    ASSERT_OK(WriteFileAtomic(dir_.Join(std::string(name) + "/1.png"), Png(1, 8, 8)));
  }
  ASSERT_OK(WriteFileAtomic(dir_.Join("dogs/0.png"), Png(3, 8, 8)));  // colour, to be turned to grey
  ASSERT_OK_AND_ASSIGN(const RawImages images, ReadPngFolder(dir_.path(), 1));
  EXPECT_EQ(images.labels, (std::vector<int32_t>{0, 1, 1}));
  EXPECT_EQ(images.class_count, 2);
  EXPECT_EQ(images.pixels.size(), 3u * 64);
}

TEST_F(PngTest, Refusals) {
  EXPECT_THAT(ReadPngFolder(dir_.Join("none"), 1), StatusIs(absl::StatusCode::kNotFound, HasSubstr("none")));
  EXPECT_THAT(ReadPngFolder(dir_.path(), 1), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("no PNG files")));
  Write("a.png", Png(1, 8, 8));
  Write("b.png", Png(1, 8, 9));
  EXPECT_THAT(ReadPngFolder(dir_.path(), 1),
              StatusIs(absl::StatusCode::kInvalidArgument, AllOf(HasSubstr("b.png: 9 x 8"), HasSubstr("8 x 8"))));
  Write("b.png", Png(1, 8, 33));
  EXPECT_THAT(ReadPngFolder(dir_.path(), 1),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("b.png: 33 x 8 pixels, wanted at most 32 x 32")));
  Write("b.png", "this is text");
  EXPECT_THAT(ReadPngFolder(dir_.path(), 1), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("b.png")));
  ASSERT_OK(MakeDirs(dir_.Join("folder")));
  EXPECT_THAT(ReadPngFolder(dir_.path(), 1), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("subfolders")));
}

TEST_F(PngTest, DamagedPng) {
  ExpectDamageIsSeen("a.png", Png(3, 12, 12), [&](const std::string&) { return ReadPngFolder(dir_.path(), 3); });
}

TEST_F(PngTest, GridLaysImagesOutRowByRow) {
  // Shades that are cut off, black, middle, and NaN; three in rows of two.
  const HostTensor images = HostTensor::Of(DType::kF32, {3, 1, 1, 2}, {-7, 7, -1, 0, NAN, 1});
  const std::string path = dir_.Join("grid.png");
  ASSERT_OK(WritePngGrid(path, images, 2));
  ASSERT_OK_AND_ASSIGN(const RawImages grid, ReadPngFolder(dir_.path(), 1));
  EXPECT_EQ(grid.width, 6);
  EXPECT_EQ(grid.height, 4);
  const uint8_t g = 32;
  EXPECT_EQ(grid.pixels, (std::vector<uint8_t>{0, 255, g, g, 0, 128,  //
                                               g, g,   g, g, g, g,    //
                                               g, g,   g, g, g, g,    //
                                               0, 255, g, g, g, g}));
  EXPECT_THAT(WritePngGrid(dir_.Join("none/grid.png"), images, 2),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("none/grid.png")));
}

TEST_F(ImageFilesTest, OpenImagesPicksTheReader) {
  const std::string images = Write("images", Idx({2, 4, 4}, Ramp(32)));
  ASSERT_OK_AND_ASSIGN(const ImageSet set, OpenImages({.paths = {images}}));
  EXPECT_EQ(set.count(), 2);
  EXPECT_THAT(OpenImages({.paths = {images, images}}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("paths: 2 given, wanted one")));
  EXPECT_THAT(OpenImages({.format = ImageFiles::Format::kPngFolder, .paths = {dir_.path()}, .channels = 2}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("channels: 2")));
}

// The real files, where their package is installed.
TEST_F(ImageFilesTest, FashionMnist) {
  const std::string folder = "/usr/share/datasets/fashion-mnist/";
  if (!FileExists(folder + "t10k-images-idx3-ubyte.gz")) GTEST_SKIP() << "no package dataset-fashion-mnist";
  ASSERT_OK_AND_ASSIGN(const ImageSet set, OpenImages({.paths = {folder + "t10k-images-idx3-ubyte.gz"},
                                                       .labels_path = folder + "t10k-labels-idx1-ubyte.gz"}));
  EXPECT_EQ(set.count(), 10000);
  EXPECT_EQ(set.class_count(), 10);
  const HostTensor sample(DType::kF32, {1, 1, 32, 32});
  const HostTensor label(DType::kI32, {1});
  set.FillReference(0, sample, label);
  EXPECT_EQ(label.as<int32_t>()[0], 9);  // an ankle boot
}

}  // namespace
}  // namespace trainyard::data
