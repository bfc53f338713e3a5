#include "worker/model/safetensors.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/check.h"
#include "base/file.h"
#include "base/status_macros.h"

namespace trainyard::model {
namespace {

using kernels::DType;
using Json = nlohmann::json;

constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the reference implementation's limit
constexpr uint64_t kDataAlignment = 64;
constexpr char kMetadataKey[] = "__metadata__";

struct Format {
  const char* name;
  uint64_t bytes;
  std::optional<DType> dtype;
};
constexpr Format kFormats[] = {
    {"F32", 4, DType::kF32},        {"BF16", 2, DType::kBF16},      {"F16", 2, DType::kF16},
    {"F8_E4M3", 1, DType::kF8E4M3}, {"F8_E5M2", 1, DType::kF8E5M2}, {"I32", 4, DType::kI32},
    {"U32", 4, DType::kU32},        {"U16", 2, DType::kU16},        {"U8", 1, DType::kU8},
    {"F64", 8, std::nullopt},       {"I64", 8, std::nullopt},       {"U64", 8, std::nullopt},
    {"I16", 2, std::nullopt},       {"I8", 1, std::nullopt},        {"BOOL", 1, std::nullopt},
};

const Format* FindFormat(const std::string& name) {
  for (const Format& format : kFormats) {
    if (name == format.name) return &format;
  }
  return nullptr;
}

const char* FormatName(DType dtype) {
  for (const Format& format : kFormats) {
    if (format.dtype == dtype) return format.name;
  }
  TY_CHECK(false);
  return "";
}

std::string ShapeText(const std::vector<int64_t>& shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

// Bytes of a tensor; nullopt if an extent is negative or the product does not fit.
std::optional<uint64_t> ByteCount(const std::vector<int64_t>& shape, uint64_t element_bytes) {
  uint64_t product = element_bytes;
  for (int64_t extent : shape) {
    if (extent < 0 || __builtin_mul_overflow(product, static_cast<uint64_t>(extent), &product)) return std::nullopt;
  }
  if (product > static_cast<uint64_t>(INT64_MAX)) return std::nullopt;
  return product;
}

// Parses the header; a key that stands twice in one object is an error, where a plain parse would keep the last.
absl::StatusOr<Json> ParseHeader(const char* begin, const char* end, const std::string& path) {
  std::vector<std::set<std::string>> keys;
  std::string repeated;
  const auto on_event = [&](int, Json::parse_event_t event, Json& parsed) {
    if (event == Json::parse_event_t::object_start) keys.emplace_back();
    if (event == Json::parse_event_t::object_end) keys.pop_back();
    if (event == Json::parse_event_t::key) {
      const std::string& key = parsed.get_ref<const std::string&>();
      if (!keys.back().insert(key).second && repeated.empty()) repeated = key;
    }
    return true;
  };
  Json header = Json::parse(begin, end, on_event, /*allow_exceptions=*/false);
  if (header.is_discarded() || !header.is_object()) {
    return absl::DataLossError(absl::StrCat(path, ": the header is not a JSON object"));
  }
  if (!repeated.empty()) return absl::DataLossError(absl::StrCat(path, ": the header names ", repeated, " twice"));
  return header;
}

absl::StatusOr<SafetensorsEntry> ParseEntry(const std::string& where, const std::string& name, const Json& json) {
  const auto bad = [&](absl::string_view what) { return absl::DataLossError(absl::StrCat(where, ": ", what)); };
  if (!json.is_object()) return bad("is not an object");
  if (!json.contains("dtype") || !json["dtype"].is_string()) return bad("dtype is not a string");
  if (!json.contains("shape") || !json["shape"].is_array()) return bad("shape is not a list");
  if (!json.contains("data_offsets") || !json["data_offsets"].is_array() || json["data_offsets"].size() != 2) {
    return bad("data_offsets is not a list of two");
  }
  SafetensorsEntry entry;
  entry.name = name;
  entry.format = json["dtype"].get<std::string>();
  const Format* const format = FindFormat(entry.format);
  if (format == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat(where, ": dtype ", entry.format, " is not known"));
  }
  entry.dtype = format->dtype;
  for (const Json& extent : json["shape"]) {
    if (!extent.is_number_unsigned() || extent.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX)) {
      return bad(absl::StrCat("shape holds ", extent.dump(-1, ' ', false, Json::error_handler_t::replace)));
    }
    entry.shape.push_back(extent.get<int64_t>());
  }
  for (const Json& offset : json["data_offsets"]) {
    if (!offset.is_number_unsigned()) return bad("data_offsets are not unsigned integers");
  }
  entry.begin = json["data_offsets"][0].get<uint64_t>();
  entry.end = json["data_offsets"][1].get<uint64_t>();
  if (entry.begin > entry.end) return bad(absl::StrCat("data_offsets [", entry.begin, ", ", entry.end, "] go back"));
  const std::optional<uint64_t> bytes = ByteCount(entry.shape, format->bytes);
  if (!bytes.has_value()) return bad(absl::StrCat("shape ", ShapeText(entry.shape), " is too large"));
  if (*bytes != entry.bytes()) {
    return bad(absl::StrCat("shape ", ShapeText(entry.shape), " of ", entry.format, " takes ", *bytes,
                            " bytes, data_offsets give ", entry.bytes()));
  }
  return entry;
}

}  // namespace

int64_t SafetensorsEntry::size() const {
  int64_t product = 1;
  for (int64_t extent : shape) product *= extent;
  return product;
}

absl::StatusOr<SafetensorsReader> SafetensorsReader::Open(const std::string& path) {
  TY_ASSIGN_OR_RETURN(MappedFile file, MappedFile::Open(path));
  SafetensorsReader reader(path, std::move(file));
  TY_RETURN_IF_ERROR(reader.Parse());
  return reader;
}

absl::Status SafetensorsReader::Parse() {
  if (file_.size() < 8) {
    return absl::DataLossError(absl::StrCat(path_, ": ", file_.size(), " bytes are too few for a safetensors file"));
  }
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, file_.data(), 8);
  if (header_bytes > kMaxHeaderBytes || header_bytes > file_.size() - 8) {
    return absl::DataLossError(absl::StrCat(path_, ": a header of ", header_bytes, " bytes in a file of ", file_.size(),
                                            " (cut, or no safetensors file)"));
  }
  data_offset_ = 8 + header_bytes;
  const char* const text = reinterpret_cast<const char*>(file_.data()) + 8;
  TY_ASSIGN_OR_RETURN(const Json header, ParseHeader(text, text + header_bytes, path_));
  for (const auto& [name, value] : header.items()) {
    if (name == kMetadataKey) {
      if (!value.is_object()) return absl::DataLossError(absl::StrCat(path_, ": __metadata__ is not an object"));
      for (const auto& [key, text_value] : value.items()) {
        if (!text_value.is_string()) {
          return absl::DataLossError(absl::StrCat(path_, ": __metadata__.", key, " is not a string"));
        }
        metadata_[key] = text_value.get<std::string>();
      }
      continue;
    }
    TY_ASSIGN_OR_RETURN(SafetensorsEntry entry, ParseEntry(absl::StrCat(path_, ": tensor ", name), name, value));
    entries_[name] = std::move(entry);
  }

  std::vector<const SafetensorsEntry*> by_place;
  for (const auto& [name, entry] : entries_) by_place.push_back(&entry);
  std::sort(by_place.begin(), by_place.end(), [](const SafetensorsEntry* a, const SafetensorsEntry* b) {
    return std::tie(a->begin, a->end) < std::tie(b->begin, b->end);
  });
  uint64_t expected = 0;
  for (const SafetensorsEntry* entry : by_place) {
    if (entry->begin != expected) {
      return absl::DataLossError(absl::StrCat(path_, ": tensor ", entry->name, ": begins at byte ", entry->begin,
                                              " where ", expected, " was due (a hole or an overlap)"));
    }
    expected = entry->end;
  }
  const uint64_t present = file_.size() - data_offset_;
  if (expected != present) {
    return absl::DataLossError(absl::StrCat(path_, ": the tensors take ", expected, " bytes, the file has ", present,
                                            expected > present ? " (cut)" : " (something was appended)"));
  }
  return absl::OkStatus();
}

absl::StatusOr<const SafetensorsEntry*> SafetensorsReader::Find(const std::string& name) const {
  const auto found = entries_.find(name);
  if (found == entries_.end()) return absl::NotFoundError(absl::StrCat(path_, ": has no tensor ", name));
  return &found->second;
}

const void* SafetensorsReader::Data(const SafetensorsEntry& entry) const {
  return file_.data() + data_offset_ + entry.begin;
}

absl::StatusOr<kernels::TensorView> SafetensorsReader::Tensor(const std::string& name) const {
  TY_ASSIGN_OR_RETURN(const SafetensorsEntry* const entry, Find(name));
  const auto bad = [&](absl::string_view what) {
    return absl::InvalidArgumentError(absl::StrCat(path_, ": tensor ", name, ": ", what));
  };
  if (!entry->dtype.has_value()) return bad(absl::StrCat("dtype ", entry->format, " has no tensor type here"));
  void* const data = const_cast<void*>(Data(*entry));
  const uint64_t element_bytes = kernels::SizeOf(*entry->dtype);
  if (reinterpret_cast<uintptr_t>(data) % element_bytes != 0) {
    return bad(absl::StrCat("byte ", data_offset_ + entry->begin, " of the file is not a multiple of ", element_bytes));
  }
  const std::vector<int64_t>& s = entry->shape;
  switch (s.size()) {
    case 0:
      return kernels::TensorView(data, *entry->dtype, {});
    case 1:
      return kernels::TensorView(data, *entry->dtype, {s[0]});
    case 2:
      return kernels::TensorView(data, *entry->dtype, {s[0], s[1]});
    case 3:
      return kernels::TensorView(data, *entry->dtype, {s[0], s[1], s[2]});
    case 4:
      return kernels::TensorView(data, *entry->dtype, {s[0], s[1], s[2], s[3]});
    default:
      return bad(absl::StrCat("shape ", ShapeText(s), " has more than ", kernels::kMaxRank, " dimensions"));
  }
}

std::string SafetensorsReader::FileDigest() const {
  return DigestOf(file_.text());
}

absl::StatusOr<SafetensorsWriter> SafetensorsWriter::Create(const std::string& path,
                                                            std::vector<SafetensorsTensorSpec> tensors,
                                                            const std::map<std::string, std::string>& metadata) {
  std::sort(tensors.begin(), tensors.end(), [](const SafetensorsTensorSpec& a, const SafetensorsTensorSpec& b) {
    const size_t a_bytes = kernels::SizeOf(a.dtype);
    const size_t b_bytes = kernels::SizeOf(b.dtype);
    return a_bytes != b_bytes ? a_bytes > b_bytes : a.name < b.name;
  });
  // An ordered object keeps the header in the order of the bytes, as people expect to read it.
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header[kMetadataKey] = metadata;
  std::set<std::string> names;
  uint64_t offset = 0;
  for (const SafetensorsTensorSpec& tensor : tensors) {
    const std::string where = absl::StrCat(path, ": tensor \"", tensor.name, "\": ");
    if (tensor.name.empty() || tensor.name == kMetadataKey) {
      return absl::InvalidArgumentError(absl::StrCat(where, "this name cannot be used"));
    }
    if (!names.insert(tensor.name).second) return absl::InvalidArgumentError(absl::StrCat(where, "stands there twice"));
    const std::optional<uint64_t> bytes = ByteCount(tensor.shape, kernels::SizeOf(tensor.dtype));
    if (!bytes.has_value()) {
      return absl::InvalidArgumentError(absl::StrCat(where, "shape ", ShapeText(tensor.shape), " is not possible"));
    }
    // emplace on an ordered object is a linear search; the names are known to differ, so append.
    nlohmann::ordered_json entry = nlohmann::ordered_json::object();
    entry["dtype"] = FormatName(tensor.dtype);
    entry["shape"] = tensor.shape;
    entry["data_offsets"] = {offset, offset + *bytes};
    header.get_ref<nlohmann::ordered_json::object_t&>().push_back({tensor.name, std::move(entry)});
    offset += *bytes;
  }
  // Names that are not UTF-8 would make dump throw; what is written must be what is read back.
  std::string text = header.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
  text.append((kDataAlignment - (8 + text.size()) % kDataAlignment) % kDataAlignment, ' ');
  if (text.size() > kMaxHeaderBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": the header takes ", text.size(), " bytes, more than ", kMaxHeaderBytes));
  }

  SafetensorsWriter writer;
  writer.path_ = path;
  writer.order_ = std::move(tensors);
  const std::string temporary = path + ".tmp";
  writer.fd_ = UniqueFd(open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
  if (!writer.fd_.valid()) return ErrnoStatus(errno, "create", temporary);
  const uint64_t header_bytes = text.size();
  TY_RETURN_IF_ERROR(writer.Write(&header_bytes, sizeof(header_bytes)));
  TY_RETURN_IF_ERROR(writer.Write(text.data(), text.size()));
  writer.SkipComplete();
  return writer;
}

SafetensorsWriter::SafetensorsWriter(SafetensorsWriter&&) noexcept = default;

SafetensorsWriter::~SafetensorsWriter() {
  if (fd_.valid()) unlink((path_ + ".tmp").c_str());
}

absl::Status SafetensorsWriter::Write(const void* data, uint64_t bytes) {
  digest_.Update(data, bytes);
  const char* next = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t written = write(fd_.get(), next, bytes);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return ErrnoStatus(errno, "write", path_ + ".tmp");
    next += written;
    bytes -= static_cast<uint64_t>(written);
    file_bytes_ += static_cast<uint64_t>(written);
  }
  return absl::OkStatus();
}

void SafetensorsWriter::SkipComplete() {
  while (current_ < order_.size() &&
         current_written_ == *ByteCount(order_[current_].shape, kernels::SizeOf(order_[current_].dtype))) {
    ++current_;
    current_written_ = 0;
  }
}

absl::Status SafetensorsWriter::Append(const std::string& name, const void* data, uint64_t bytes) {
  if (bytes == 0) return absl::OkStatus();  // an empty tensor has no turn
  if (!fd_.valid() || current_ == order_.size()) {
    return absl::FailedPreconditionError(absl::StrCat(path_, ": tensor ", name, ": the file is complete"));
  }
  const SafetensorsTensorSpec& tensor = order_[current_];
  if (name != tensor.name) {
    return absl::FailedPreconditionError(
        absl::StrCat(path_, ": tensor ", name, ": out of order, ", tensor.name, " is next"));
  }
  const uint64_t left = *ByteCount(tensor.shape, kernels::SizeOf(tensor.dtype)) - current_written_;
  if (bytes > left) {
    return absl::FailedPreconditionError(
        absl::StrCat(path_, ": tensor ", name, ": ", bytes, " bytes given, ", left, " left"));
  }
  TY_RETURN_IF_ERROR(Write(data, bytes));
  current_written_ += bytes;
  SkipComplete();
  return absl::OkStatus();
}

absl::StatusOr<SafetensorsFileInfo> SafetensorsWriter::Finish() {
  if (!fd_.valid()) return absl::FailedPreconditionError(absl::StrCat(path_, ": already finished"));
  if (current_ < order_.size()) {
    return absl::FailedPreconditionError(
        absl::StrCat(path_, ": tensor ", order_[current_].name, ": ", current_written_, " of ",
                     *ByteCount(order_[current_].shape, kernels::SizeOf(order_[current_].dtype)), " bytes written"));
  }
  const std::string temporary = path_ + ".tmp";
  if (fsync(fd_.get()) != 0) return ErrnoStatus(errno, "sync", temporary);
  if (rename(temporary.c_str(), path_.c_str()) != 0) return ErrnoStatus(errno, "rename", temporary);
  fd_.reset();
  const size_t slash = path_.rfind('/');
  TY_RETURN_IF_ERROR(SyncDir(slash == std::string::npos ? "." : path_.substr(0, slash + 1)));
  return SafetensorsFileInfo{.bytes = file_bytes_, .digest = digest_.Hex()};
}

absl::StatusOr<SafetensorsFileInfo> WriteSafetensors(const std::string& path,
                                                     const std::vector<SafetensorsTensorSpec>& tensors,
                                                     const std::vector<const void*>& data,
                                                     const std::map<std::string, std::string>& metadata) {
  TY_CHECK_EQ(tensors.size(), data.size());
  TY_ASSIGN_OR_RETURN(SafetensorsWriter writer, SafetensorsWriter::Create(path, tensors, metadata));
  std::map<std::string, const void*> data_of;
  for (size_t i = 0; i < tensors.size(); ++i) data_of[tensors[i].name] = data[i];
  for (const SafetensorsTensorSpec& tensor : writer.order()) {
    const uint64_t bytes = *ByteCount(tensor.shape, kernels::SizeOf(tensor.dtype));
    TY_RETURN_IF_ERROR(writer.Append(tensor.name, data_of[tensor.name], bytes));
  }
  return writer.Finish();
}

}  // namespace trainyard::model
