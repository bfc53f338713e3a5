#include "worker/model/safetensors.h"

#include <cstring>

#include "base/file.h"
#include "base/testing/status_matchers.h"
#include "base/testing/temp_dir.h"
#include "gtest/gtest.h"

namespace trainyard::model {
namespace {

using ::absl::StatusCode;
using kernels::DType;
using ::testing::AllOf;
using ::testing::HasSubstr;

// A file with the given header text and data.
std::string Raw(const std::string& header, const std::string& data) {
  const uint64_t size = header.size();
  return std::string(reinterpret_cast<const char*>(&size), 8) + header + data;
}

class SafetensorsTest : public ::testing::Test {
 protected:
  std::string path() const { return dir_.Join("model.safetensors"); }
  absl::StatusOr<SafetensorsReader> OpenRaw(const std::string& bytes) {
    TY_RETURN_IF_ERROR(WriteFileAtomic(path(), bytes));
    return SafetensorsReader::Open(path());
  }
  TempDir dir_;
};

// The header that the reference (safetensors 0.8.0) writes for save({"b": float32 [0, 1, 2], "a": int32 [[1, 2]]},
// metadata={"k": "v"}).
constexpr char kReferenceHeader[] =
    R"({"__metadata__":{"k":"v"},"b":{"dtype":"F32","shape":[3],"data_offsets":[0,12]},)"
    R"("a":{"dtype":"I32","shape":[1,2],"data_offsets":[12,20]}}       )";

TEST_F(SafetensorsTest, ReadsWhatTheReferenceWrites) {
  const float b[] = {0, 1, 2};
  const int32_t a[] = {1, 2};
  ASSERT_OK_AND_ASSIGN(const SafetensorsReader reader,
                       OpenRaw(Raw(kReferenceHeader, std::string(reinterpret_cast<const char*>(b), 12) +
                                                         std::string(reinterpret_cast<const char*>(a), 8))));
  EXPECT_EQ(reader.metadata(), (std::map<std::string, std::string>{{"k", "v"}}));
  ASSERT_OK_AND_ASSIGN(const kernels::TensorView view, reader.Tensor("b"));
  EXPECT_EQ(view.dim(0), 3);
  EXPECT_EQ(view.as<float>()[2], 2.0f);
  ASSERT_OK_AND_ASSIGN(const kernels::TensorView ints, reader.Tensor("a"));
  EXPECT_EQ(ints.dim(1), 2);
  EXPECT_EQ(ints.as<int32_t>()[0], 1);
  EXPECT_THAT(reader.Tensor("c"), StatusIs(StatusCode::kNotFound, HasSubstr("no tensor c")));
}

TEST_F(SafetensorsTest, RoundTripOfEveryTypeIsAlignedAndKeepsBytesShapesAndMetadata) {
  const std::vector<DType> types = {DType::kU8,     DType::kBF16, DType::kF32, DType::kF8E4M3, DType::kI32,
                                    DType::kF8E5M2, DType::kF16,  DType::kU32, DType::kU16};
  std::vector<SafetensorsTensorSpec> specs;
  std::vector<std::string> bytes;
  for (size_t i = 0; i < types.size(); ++i) {
    specs.push_back({absl::StrCat("t", i, "\"\\é"), types[i], {3, static_cast<int64_t>(i)}});  // t0 is empty
    bytes.emplace_back(3 * i * kernels::SizeOf(types[i]), static_cast<char>(i));
  }
  specs.push_back({"scalar", DType::kF32, {}});
  bytes.emplace_back(4, 'x');
  std::vector<const void*> data;
  for (const std::string& b : bytes) data.push_back(b.data());
  ASSERT_OK_AND_ASSIGN(const SafetensorsFileInfo info, WriteSafetensors(path(), specs, data, {{"step", "7"}}));

  ASSERT_OK_AND_ASSIGN(const SafetensorsReader reader, SafetensorsReader::Open(path()));
  EXPECT_EQ(reader.metadata().at("step"), "7");
  EXPECT_EQ(reader.entries().size(), specs.size());
  for (size_t i = 0; i < specs.size(); ++i) {
    ASSERT_OK_AND_ASSIGN(const SafetensorsEntry* const entry, reader.Find(specs[i].name));
    EXPECT_EQ(entry->dtype, specs[i].dtype);
    EXPECT_EQ(entry->shape, specs[i].shape);
    EXPECT_EQ(std::string(static_cast<const char*>(reader.Data(*entry)), entry->bytes()), bytes[i]);
    EXPECT_OK(reader.Tensor(specs[i].name));  // fails if the element is not aligned
  }
  EXPECT_EQ(info.bytes, reader.file_bytes());
  EXPECT_EQ(info.digest, reader.FileDigest());
  ASSERT_OK_AND_ASSIGN(const std::string digest, DigestOfFile(path()));
  EXPECT_EQ(info.digest, digest);
  EXPECT_FALSE(FileExists(path() + ".tmp"));
}

TEST_F(SafetensorsTest, AFileWithoutTensorsIsFine) {
  ASSERT_OK(WriteSafetensors(path(), {}, {}));
  ASSERT_OK_AND_ASSIGN(const SafetensorsReader reader, SafetensorsReader::Open(path()));
  EXPECT_TRUE(reader.entries().empty());
}

TEST_F(SafetensorsTest, EveryTruncationIsDataLoss) {
  const float values[] = {1, 2, 3, 4};
  ASSERT_OK(WriteSafetensors(path(), {{"w", DType::kF32, {2, 2}}}, {values}));
  ASSERT_OK_AND_ASSIGN(const std::string whole, ReadFile(path()));
  for (size_t size = 0; size < whole.size(); ++size) {
    EXPECT_THAT(OpenRaw(whole.substr(0, size)), StatusIs(StatusCode::kDataLoss, HasSubstr("model.safetensors")))
        << size;
  }
  EXPECT_THAT(OpenRaw(whole + "x"), StatusIs(StatusCode::kDataLoss, HasSubstr("appended")));
}

TEST_F(SafetensorsTest, NoDamagedHeaderByteCrashes) {
  const float values[] = {1, 2, 3, 4};
  ASSERT_OK(WriteSafetensors(path(), {{"w", DType::kF32, {2, 2}}}, {values}, {{"a", "b"}}));
  ASSERT_OK_AND_ASSIGN(const std::string whole, ReadFile(path()));
  const size_t header = whole.size() - sizeof(values);
  for (size_t i = 0; i < header; ++i) {
    for (int change : {0x01, 0x02, 0x10, 0x80, 0xFF}) {
      std::string damaged = whole;
      damaged[i] = static_cast<char>(damaged[i] ^ change);
      const absl::StatusOr<SafetensorsReader> reader = OpenRaw(damaged);
      if (!reader.ok()) continue;
      // A name or a metadata text may have changed; what is described must still lie inside the file.
      for (const auto& [name, entry] : reader->entries()) EXPECT_EQ(entry.end, 16u);
    }
  }
}

TEST_F(SafetensorsTest, RefusesWhatContradictsItself) {
  struct Case {
    const char* header;
    size_t data;
    StatusCode code;
    const char* message;
  };
  const Case cases[] = {
      {R"([1])", 0, StatusCode::kDataLoss, "not a JSON object"},
      {R"({"w":3})", 0, StatusCode::kDataLoss, "tensor w: is not an object"},
      {R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", 4, StatusCode::kDataLoss, "takes 8 bytes"},
      {R"({"w":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", 4, StatusCode::kDataLoss, "shape holds -1"},
      {R"({"w":{"dtype":"F32","shape":[1.5],"data_offsets":[0,4]}})", 4, StatusCode::kDataLoss, "shape holds 1.5"},
      {R"({"w":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}})", 0, StatusCode::kDataLoss,
       "too large"},
      {R"({"w":{"dtype":"F32","shape":[],"data_offsets":[4,0]}})", 4, StatusCode::kDataLoss, "go back"},
      {R"({"w":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", 8, StatusCode::kDataLoss, "a hole"},
      {R"({"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"v":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
       4, StatusCode::kDataLoss, "overlap"},
      {R"({"w":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},"w":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}})",
       0, StatusCode::kDataLoss, "names w twice"},
      {R"({"w":{"dtype":"Q4","shape":[0],"data_offsets":[0,0]}})", 0, StatusCode::kInvalidArgument, "Q4 is not known"},
      {R"({"__metadata__":{"a":1}})", 0, StatusCode::kDataLoss, "__metadata__.a is not a string"},
  };
  for (const Case& c : cases) {
    EXPECT_THAT(OpenRaw(Raw(c.header, std::string(c.data, 'x'))), StatusIs(c.code, HasSubstr(c.message))) << c.header;
  }
}

TEST_F(SafetensorsTest, FormatsWithoutATensorTypeAreListedButNotViewed) {
  ASSERT_OK_AND_ASSIGN(
      const SafetensorsReader reader,
      OpenRaw(Raw(R"({"ids":{"dtype":"I64","shape":[2],"data_offsets":[0,16]}})", std::string(16, 'x'))));
  EXPECT_EQ(reader.entries().at("ids").format, "I64");
  EXPECT_THAT(reader.Tensor("ids"), StatusIs(StatusCode::kInvalidArgument, AllOf(HasSubstr("ids"), HasSubstr("I64"))));
}

TEST_F(SafetensorsTest, WriterRefusesWrongOrderTooManyAndMissingBytes) {
  const float values[] = {1, 2};
  ASSERT_OK_AND_ASSIGN(SafetensorsWriter writer,
                       SafetensorsWriter::Create(path(), {{"b", DType::kF32, {2}}, {"a", DType::kF32, {1}}}));
  EXPECT_THAT(writer.Append("b", values, 8), StatusIs(StatusCode::kFailedPrecondition, HasSubstr("a is next")));
  EXPECT_THAT(writer.Append("a", values, 8), StatusIs(StatusCode::kFailedPrecondition, HasSubstr("4 left")));
  EXPECT_OK(writer.Append("a", values, 4));
  EXPECT_OK(writer.Append("b", values, 3));  // pieces of any size
  EXPECT_THAT(writer.Finish(), StatusIs(StatusCode::kFailedPrecondition, HasSubstr("tensor b: 3 of 8")));
  EXPECT_OK(writer.Append("b", reinterpret_cast<const char*>(values) + 3, 5));
  EXPECT_OK(writer.Finish());
  ASSERT_OK_AND_ASSIGN(const SafetensorsReader reader, SafetensorsReader::Open(path()));
  EXPECT_EQ(reader.Tensor("b")->as<float>()[1], 2.0f);
}

TEST_F(SafetensorsTest, AnUnfinishedFileLeavesTheOldOneAndNothingElse) {
  ASSERT_OK(WriteFileAtomic(path(), "old"));
  {
    ASSERT_OK_AND_ASSIGN(SafetensorsWriter writer, SafetensorsWriter::Create(path(), {{"a", DType::kF32, {1}}}));
    SafetensorsWriter moved = std::move(writer);
    EXPECT_TRUE(FileExists(path() + ".tmp"));
  }
  EXPECT_FALSE(FileExists(path() + ".tmp"));
  ASSERT_OK_AND_ASSIGN(const std::string content, ReadFile(path()));
  EXPECT_EQ(content, "old");
}

TEST_F(SafetensorsTest, AFullDiskIsResourceExhausted) {
  // /dev/full takes no byte: the writer's own name for its temporary file is made to lead there.
  ASSERT_EQ(symlink("/dev/full", (path() + ".tmp").c_str()), 0);
  EXPECT_THAT(SafetensorsWriter::Create(path(), {{"a", DType::kF32, {1}}}),
              StatusIs(StatusCode::kResourceExhausted, HasSubstr("model.safetensors.tmp")));
}

TEST_F(SafetensorsTest, RefusesNamesThatCannotBe) {
  for (const std::string name : {"", "__metadata__"}) {
    EXPECT_THAT(SafetensorsWriter::Create(path(), {{name, DType::kF32, {1}}}),
                StatusIs(StatusCode::kInvalidArgument, HasSubstr("cannot be used")));
  }
  EXPECT_THAT(SafetensorsWriter::Create(path(), {{"a", DType::kF32, {1}}, {"a", DType::kF32, {1}}}),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("twice")));
  EXPECT_THAT(SafetensorsWriter::Create(path(), {{"a", DType::kF32, {-1}}}),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("[-1]")));
}

}  // namespace
}  // namespace trainyard::model
