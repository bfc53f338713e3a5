#include "base/descriptor_limit.h"

#include <fcntl.h>
#include <sys/resource.h>

#include <vector>

#include "base/unique_fd.h"
#include "gtest/gtest.h"

namespace trainyard {
namespace {

TEST(DescriptorLimitTest, MoreFilesCanBeOpenThanTheLimitAtTheStartAllows) {
  rlimit limit = {};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
  if (limit.rlim_max < 128) GTEST_SKIP() << "this process may not open 128 files";
  limit.rlim_cur = 64;
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
  const auto open_files = [] {
    std::vector<UniqueFd> files;
    while (files.size() < 100) {
      UniqueFd file(open("/dev/null", O_RDONLY | O_CLOEXEC));
      if (!file.valid()) break;
      files.push_back(std::move(file));
    }
    return files.size();
  };
  EXPECT_LT(open_files(), 64u);
  EXPECT_EQ(RaiseDescriptorLimit(), static_cast<int64_t>(limit.rlim_max));
  EXPECT_EQ(open_files(), 100u);
}

}  // namespace
}  // namespace trainyard
