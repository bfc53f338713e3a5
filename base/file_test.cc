#include "base/file.h"

#include <sys/wait.h>
#include <unistd.h>

#include "base/testing/status_matchers.h"
#include "base/testing/temp_dir.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace trainyard {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(FileTest, AtomicWriteReplacesAndLeavesNoTemporary) {
  TempDir dir;
  ASSERT_OK(WriteFileAtomic(dir.Join("a"), "one"));
  ASSERT_OK(WriteFileAtomic(dir.Join("a"), std::string("two\0three", 9)));
  ASSERT_OK_AND_ASSIGN(std::string content, ReadFile(dir.Join("a")));
  EXPECT_EQ(content, std::string("two\0three", 9));
  ASSERT_OK_AND_ASSIGN(std::vector<std::string> names, ListDir(dir.path()));
  EXPECT_THAT(names, ElementsAre("a"));
}

TEST(FileTest, ErrorsNameThePath) {
  TempDir dir;
  EXPECT_THAT(ReadFile(dir.Join("missing")), StatusIs(absl::StatusCode::kNotFound, HasSubstr("missing")));
  EXPECT_THAT(WriteFileAtomic(dir.Join("no/such/folder"), ""),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("no/such/folder")));
  EXPECT_THAT(ListDir(dir.Join("missing")), StatusIs(absl::StatusCode::kNotFound, HasSubstr("missing")));
}

TEST(FileTest, FullDiskIsResourceExhausted) {
  EXPECT_THAT(ErrnoStatus(ENOSPC, "write", "/x"), StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("/x")));
}

TEST(FileTest, JoinPath) {
  EXPECT_EQ(JoinPath("a", "b"), "a/b");
  EXPECT_EQ(JoinPath("a/", "b"), "a/b");
  EXPECT_EQ(JoinPath("a", "/b"), "/b");
  EXPECT_EQ(JoinPath("", "b"), "b");
}

TEST(FileTest, LockExcludesAnotherProcessUntilReleased) {
  TempDir dir;
  const std::string path = dir.Join("lock");
  const auto held_by_child_too = [&] {
    const pid_t child = fork();
    if (child == 0) _exit(FileLock::Acquire(path).ok() ? 1 : 0);
    int status = 0;
    waitpid(child, &status, 0);
    return WEXITSTATUS(status) == 1;
  };
  {
    ASSERT_OK_AND_ASSIGN(FileLock lock, FileLock::Acquire(path));
    EXPECT_FALSE(held_by_child_too());
    EXPECT_THAT(FileLock::Acquire(path),
                StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr(std::to_string(getpid()))));
  }
  EXPECT_TRUE(held_by_child_too());
}

}  // namespace
}  // namespace trainyard
