#include "worker/comm/gloo/address_blob.h"

#include "base/testing/status_matchers.h"
#include "gtest/gtest.h"

namespace trainyard::comm {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

AddressBlob Sample() {
  AddressBlob blob;
  blob.tag = {"6f1c", 3, 0xFFFFFFFFFFFFFFF0u};
  blob.rank = 1;
  blob.world_size = 3;
  blob.channels = {{"a", "", std::string("\0x", 2)}, {"b", "", "c"}};
  return blob;
}

TEST(AddressBlobTest, ComesBackAsItWas) {
  ASSERT_OK_AND_ASSIGN(const AddressBlob blob, DecodeAddressBlob(EncodeAddressBlob(Sample())));
  EXPECT_EQ(blob.channels, Sample().channels);
  EXPECT_OK(CheckAddressBlob(blob, Sample().tag, 1, 3));
}

TEST(AddressBlobTest, RefusesEveryPrefixAndTrailingBytes) {
  const std::string bytes = EncodeAddressBlob(Sample());
  for (size_t length = 0; length < bytes.size(); ++length) {
    EXPECT_THAT(DecodeAddressBlob(bytes.substr(0, length)),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("malformed")))
        << length;
  }
  EXPECT_THAT(DecodeAddressBlob(bytes + "x"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("follow its end")));
}

TEST(AddressBlobTest, AnyDifferenceOfTheTagMakesItStale) {
  const AddressBlob blob = Sample();
  const auto stale = StatusIs(absl::StatusCode::kAborted, AllOf(HasSubstr("stale"), HasSubstr("6f1c attempt 3")));
  EXPECT_THAT(CheckAddressBlob(blob, {"6f1d", 3, blob.tag.fence}, 1, 3), stale);
  EXPECT_THAT(CheckAddressBlob(blob, {"6f1c", 4, blob.tag.fence}, 1, 3), stale);
  EXPECT_THAT(CheckAddressBlob(blob, {"6f1c", 3, blob.tag.fence + 1}, 1, 3), stale);
  EXPECT_THAT(CheckAddressBlob(blob, blob.tag, 2, 3), stale);
  EXPECT_THAT(CheckAddressBlob(blob, blob.tag, 1, 4), stale);
}

}  // namespace
}  // namespace trainyard::comm
