#include "worker/cache/file_cache.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/digest.h"
#include "base/file.h"
#include "base/testing/fake_clock.h"
#include "base/testing/status_matchers.h"
#include "base/testing/temp_dir.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace trainyard::cache {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr int64_t kFileBytes = 100'000;

struct File {
  std::string path, digest, content;
};

// Files to be cached, and the folder of the cache.
class FileCacheTest : public ::testing::Test {
 protected:
  File Make(int number, int64_t bytes = kFileBytes) {
    File file;
    file.path = dir_.Join(absl::StrCat("original-", number));
    file.content.resize(static_cast<size_t>(bytes));
    for (size_t i = 0; i < file.content.size(); ++i) {
      file.content[i] = static_cast<char>(i * 31 + static_cast<size_t>(number) * 7 + i / 251);
    }
    file.digest = DigestOf(file.content);
    TY_CHECK_OK(WriteFileAtomic(file.path, file.content));
    return file;
  }

  std::string cache_dir() const { return dir_.Join("cache"); }
  std::string EntryOf(const File& file) const { return JoinPath(cache_dir(), file.digest); }

  FileCacheOptions Options(int64_t limit_bytes = 100 * kFileBytes) {
    return {.directory = cache_dir(),
            .limit_bytes = limit_bytes,
            .min_free_bytes = 0,
            .copies_from_same_disk = true,
            .clock = &clock_};
  }

  // Content of what the cache gives out.
  static std::string Read(FileCache& cache, const File& file) {
    const absl::StatusOr<CachedFile> got = cache.Get(file.digest, file.path);
    if (!got.ok()) return got.status().ToString();
    const absl::StatusOr<std::string> content = ReadFile(got->path());
    return content.ok() ? *content : content.status().ToString();
  }

  // Names in the folder, without the lock.
  std::vector<std::string> Names() const {
    absl::StatusOr<std::vector<std::string>> names = ListDir(cache_dir());
    TY_CHECK_OK(names);
    names->erase(std::remove(names->begin(), names->end(), "lock"), names->end());
    return *names;
  }
  int64_t BytesInFolder() const {
    int64_t bytes = 0;
    for (const std::string& name : Names()) {
      bytes += static_cast<int64_t>(std::filesystem::file_size(JoinPath(cache_dir(), name)));
    }
    return bytes;
  }

  TempDir dir_;
  FakeClock clock_;
};

TEST_F(FileCacheTest, ReadsTheOriginalOnce) {
  const File file = Make(1);
  {
    FileCache first(Options());
    EXPECT_EQ(Read(first, file), file.content);
    EXPECT_EQ(first.counts().misses, 1);
    EXPECT_EQ(first.counts().miss_bytes, kFileBytes);
  }
  ASSERT_OK(RemoveTree(file.path));
  FileCache second(Options());
  ASSERT_OK_AND_ASSIGN(const CachedFile got, second.Get(file.digest, file.path));
  EXPECT_TRUE(got.is_copy());
  EXPECT_EQ(got.path(), EntryOf(file));
  EXPECT_EQ(Read(second, file), file.content);
  EXPECT_EQ(second.counts().hits, 2);
  EXPECT_EQ(second.counts().hit_bytes, 2 * kFileBytes);
  EXPECT_EQ(second.counts().misses, 0);
  EXPECT_THAT(Names(), ElementsAre(file.digest));
}

TEST_F(FileCacheTest, KeepsEqualFilesOnceAndEmptyOnesToo) {
  const File file = Make(1), empty = Make(2, 0);
  File twin = file;
  twin.path = dir_.Join("twin");
  ASSERT_OK(WriteFileAtomic(twin.path, twin.content));
  FileCache cache(Options());
  EXPECT_EQ(Read(cache, file), file.content);
  EXPECT_EQ(Read(cache, twin), file.content);
  EXPECT_EQ(cache.counts().misses, 1);
  EXPECT_EQ(Read(cache, empty), "");
  EXPECT_EQ(Read(cache, empty), "");
  EXPECT_EQ(cache.counts().misses, 2);
}

TEST_F(FileCacheTest, ADamagedEntryIsFetchedAgain) {
  const File file = Make(1);
  std::string flipped = file.content;
  flipped[flipped.size() / 2] ^= 1;  // the same size: only the content tells
  for (const std::string& damage : {flipped, file.content.substr(1), std::string(), file.content + "x"}) {
    FileCache cache(Options());
    EXPECT_EQ(Read(cache, file), file.content);
    ASSERT_OK(WriteFileAtomic(EntryOf(file), damage));
    EXPECT_EQ(Read(cache, file), file.content);
    EXPECT_GE(cache.counts().damaged, 1);
    EXPECT_EQ(ReadFile(EntryOf(file)).value(), file.content);
  }
  // Not given out either if the original is not to be had any more.
  ASSERT_OK(WriteFileAtomic(EntryOf(file), flipped));
  ASSERT_OK(RemoveTree(file.path));
  FileCache cache(Options());
  EXPECT_THAT(cache.Get(file.digest, file.path), StatusIs(absl::StatusCode::kNotFound, HasSubstr("original-1")));
}

TEST_F(FileCacheTest, ErrorsOfTheOriginalAreTold) {
  FileCache cache(Options());
  File file = Make(1);
  const std::string wrong = DigestOf("other");
  EXPECT_THAT(cache.Get(wrong, file.path), StatusIs(absl::StatusCode::kDataLoss, HasSubstr(file.digest)));
  EXPECT_THAT(cache.Get(wrong, dir_.Join("none")), StatusIs(absl::StatusCode::kNotFound, HasSubstr("none")));
  EXPECT_THAT(cache.Get(wrong, dir_.path()), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("regular")));
  for (const std::string& bad : {std::string("../../x"), std::string(), std::string(32, 'G'), wrong + "0"}) {
    EXPECT_THAT(cache.Get(bad, file.path), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("digest"))) << bad;
  }
  EXPECT_THAT(Names(), IsEmpty());
}

TEST_F(FileCacheTest, TheLeastRecentlyUsedGoesFirst) {
  const File a = Make(1), b = Make(2), c = Make(3), d = Make(4);
  FileCache cache(Options(3 * kFileBytes));
  for (const File* file : {&a, &b, &c, &a, &d}) {  // b is the oldest when d comes
    clock_.Advance(absl::Seconds(1));
    EXPECT_EQ(Read(cache, *file), file->content);
    EXPECT_LE(BytesInFolder(), 3 * kFileBytes);
  }
  EXPECT_FALSE(FileExists(EntryOf(b)));
  for (const File* file : {&a, &c, &d}) EXPECT_TRUE(FileExists(EntryOf(*file))) << file->path;
}

TEST_F(FileCacheTest, WhatIsInUseStays) {
  const File a = Make(1), b = Make(2), c = Make(3);
  FileCache cache(Options(2 * kFileBytes));
  {
    ASSERT_OK_AND_ASSIGN(const CachedFile held_a, cache.Get(a.digest, a.path));
    clock_.Advance(absl::Seconds(1));
    ASSERT_OK_AND_ASSIGN(const CachedFile held_b, cache.Get(b.digest, b.path));
    ASSERT_OK_AND_ASSIGN(const CachedFile got, cache.Get(c.digest, c.path));
    EXPECT_FALSE(got.is_copy());
    EXPECT_EQ(got.path(), c.path);
    EXPECT_EQ(cache.counts().bypasses, 1);
    EXPECT_EQ(cache.counts().bypass_bytes, kFileBytes);
    EXPECT_TRUE(FileExists(held_a.path()));
    EXPECT_TRUE(FileExists(held_b.path()));
  }
  ASSERT_OK_AND_ASSIGN(const CachedFile got, cache.Get(c.digest, c.path));
  EXPECT_TRUE(got.is_copy());
  EXPECT_FALSE(FileExists(EntryOf(a)));
  EXPECT_LE(BytesInFolder(), 2 * kFileBytes);
}

TEST_F(FileCacheTest, ALowerLimitIsKeptFromTheNextUseOn) {
  std::vector<File> files;
  for (int i = 0; i < 5; ++i) files.push_back(Make(i));
  FileCache large(Options());
  for (const File& file : files) {
    clock_.Advance(absl::Seconds(1));
    EXPECT_EQ(Read(large, file), file.content);
  }
  FileCache small(Options(2 * kFileBytes));
  EXPECT_EQ(Read(small, files.back()), files.back().content);
  EXPECT_EQ(small.counts().hits, 1);
  EXPECT_EQ(BytesInFolder(), 2 * kFileBytes);
}

TEST_F(FileCacheTest, WhatDoesNotFitIsReadWhereItIs) {
  const File file = Make(1);
  const File small = Make(2, 10);
  for (const int variant : {0, 1, 2}) {
    FileCacheOptions options = Options();
    if (variant == 0) options.limit_bytes = kFileBytes - 1;
    if (variant == 1) options.min_free_bytes = int64_t{1} << 60;
    if (variant == 2) options.copies_from_same_disk = false;
    FileCache cache(options);
    EXPECT_EQ(Read(cache, file), file.content) << variant;
    EXPECT_EQ(Read(cache, file), file.content) << variant;
    EXPECT_EQ(cache.counts().bypasses, 2) << variant;
    EXPECT_EQ(Read(cache, small), small.content) << variant;
    EXPECT_EQ(cache.counts().misses, variant == 0 ? 1 : 0) << variant;
    EXPECT_FALSE(FileExists(EntryOf(file)));
  }
}

TEST_F(FileCacheTest, AFolderThatCannotBeFailsNobody) {
  const File file = Make(1);
  ASSERT_OK(WriteFileAtomic(cache_dir(), "a file where the folder should be"));
  FileCache cache(Options());
  EXPECT_EQ(Read(cache, file), file.content);
  EXPECT_EQ(cache.counts().bypasses, 1);
  EXPECT_THAT(cache.Get(file.digest, dir_.Join("none")), StatusIs(absl::StatusCode::kNotFound, HasSubstr("none")));
}

// A disk that takes no more bytes, by the limit that the system has for a process's files: in a child, since it is for
// the whole process.
TEST_F(FileCacheTest, AFullDiskFailsNobody) {
  const File file = Make(1);
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{kFileBytes / 2, kFileBytes / 2};
    if (setrlimit(RLIMIT_FSIZE, &limit) != 0) _exit(2);
    FileCache cache(Options());
    const bool is_right = Read(cache, file) == file.content && cache.counts().bypasses == 1;
    _exit(is_right && Names().empty() ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST_F(FileCacheTest, LeftoversOfKilledRunnersAreTakenUpOrRemoved) {
  const File file = Make(1), other = Make(2);
  ASSERT_OK(MakeDirs(cache_dir()));
  ASSERT_OK(WriteFileAtomic(EntryOf(file) + ".part", std::string(3 * kFileBytes, 'x')));
  ASSERT_OK(WriteFileAtomic(EntryOf(other) + ".part", "half"));
  // They hold no lock, so they count for nothing.
  FileCache cache(Options(kFileBytes));
  EXPECT_EQ(Read(cache, file), file.content);
  EXPECT_EQ(cache.counts().misses, 1);
  EXPECT_THAT(Names(), ElementsAre(file.digest));
}

TEST_F(FileCacheTest, DoesNotWaitForeverForAnotherRunner) {
  const File file = Make(1);
  ASSERT_OK(MakeDirs(cache_dir()));
  const std::string part = EntryOf(file) + ".part";
  const UniqueFd busy(open(part.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
  ASSERT_TRUE(busy.valid());
  ASSERT_EQ(flock(busy.get(), LOCK_EX), 0);
  FileCacheOptions options = Options();
  options.wait_timeout = absl::ZeroDuration();
  FileCache cache(options);
  EXPECT_EQ(Read(cache, file), file.content);
  EXPECT_EQ(cache.counts().bypasses, 1);
  EXPECT_TRUE(FileExists(part)) << "it is the other's";
}

// Runs `body` in children and returns what they exit with.
std::vector<int> InChildren(int count, const std::function<int(int)>& body) {
  std::vector<pid_t> children;
  for (int i = 0; i < count; ++i) {
    children.push_back(fork());
    if (children.back() == 0) _exit(body(i));
  }
  std::vector<int> codes;
  for (const pid_t child : children) {
    int status = 0;
    if (waitpid(child, &status, 0) != child || !WIFEXITED(status)) status = 255 << 8;
    codes.push_back(WEXITSTATUS(status));
  }
  return codes;
}

TEST_F(FileCacheTest, ProcessesAndThreadsFetchEachFileOnce) {
  constexpr int kFiles = 6;
  std::vector<File> files;
  for (int i = 0; i < kFiles; ++i) files.push_back(Make(i));
  const std::vector<int> misses = InChildren(4, [&](int /*child*/) {
    FileCacheOptions options = Options();
    options.clock = RealClock();
    FileCache cache(options);
    std::vector<std::thread> threads;
    std::vector<int> wrong(3, 0);
    for (int t = 0; t < 3; ++t) {
      threads.emplace_back([&, t] {
        for (const File& file : files) wrong[static_cast<size_t>(t)] += Read(cache, file) == file.content ? 0 : 1;
      });
    }
    for (std::thread& thread : threads) thread.join();
    if (wrong != std::vector<int>(3, 0) || cache.counts().bypasses != 0 || cache.counts().damaged != 0) return 200;
    return static_cast<int>(cache.counts().misses);
  });
  int sum = 0;
  for (int count : misses) {
    EXPECT_LT(count, 200);
    sum += count;
  }
  EXPECT_EQ(sum, kFiles);
  EXPECT_EQ(Names().size(), size_t{kFiles});
}

// Room for three of six: entries come and go under the readers' hands.
TEST_F(FileCacheTest, ReadersAndTheLimitHoldWhileEntriesComeAndGo) {
  std::vector<File> files;
  for (int i = 0; i < 6; ++i) files.push_back(Make(i));
  const std::vector<int> codes = InChildren(4, [&](int child) {
    FileCacheOptions options = Options(3 * kFileBytes);
    options.clock = RealClock();
    FileCache cache(options);
    for (int round = 0; round < 60; ++round) {
      const File& file = files[static_cast<size_t>(round * (child + 1) + child) % files.size()];
      const absl::StatusOr<CachedFile> got = cache.Get(file.digest, file.path);
      if (!got.ok()) return 1;
      const absl::StatusOr<std::string> content = ReadFile(got->path());
      if (!content.ok() || *content != file.content) return 2;
    }
    return cache.counts().damaged == 0 ? 0 : 3;
  });
  EXPECT_THAT(codes, ElementsAre(0, 0, 0, 0));
  EXPECT_LE(BytesInFolder(), 3 * kFileBytes);
  for (const std::string& name : Names()) EXPECT_FALSE(absl::EndsWith(name, ".part")) << name;
}

// Kills children at whatever they are at: bytes written, a rename, a removal.
TEST_F(FileCacheTest, AKillAtAnyMomentLeavesNothingWrong) {
  std::vector<File> files;
  for (int i = 0; i < 6; ++i) files.push_back(Make(i));
  for (int kill_after = 0; kill_after < 24; ++kill_after) {
    int pipe_fds[2];
    ASSERT_EQ(pipe(pipe_fds), 0);
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      close(pipe_fds[0]);
      FileCache cache(Options(3 * kFileBytes));
      for (int round = kill_after;; ++round) {  // until it is killed
        const File& file = files[static_cast<size_t>(round) % files.size()];
        if (Read(cache, file) != file.content) _exit(1);
        if (write(pipe_fds[1], "x", 1) != 1) _exit(2);
      }
    }
    close(pipe_fds[1]);
    char told[64];
    for (int64_t seen = 0; seen <= kill_after;) {
      const ssize_t got = read(pipe_fds[0], told, sizeof(told));
      ASSERT_GT(got, 0) << "the child found something wrong";
      seen += got;
    }
    kill(child, SIGKILL);
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    close(pipe_fds[0]);
    EXPECT_TRUE(WIFSIGNALED(status));

    FileCache cache(Options(3 * kFileBytes));
    EXPECT_EQ(Read(cache, files[0]), files[0].content);
    EXPECT_EQ(cache.counts().damaged, 0);
    EXPECT_EQ(cache.counts().bypasses, 0);
    EXPECT_LE(BytesInFolder(), 3 * kFileBytes);
  }
}

TEST(DigestInNameTest, FindsOnlyWholeNames) {
  const std::string digest = DigestOf("x");
  EXPECT_EQ(DigestInName("/a/" + digest + ".safetensors", "", ".safetensors"), digest);
  EXPECT_EQ(DigestInName("/a/database-" + digest + ".json", "database-", ".json"), digest);
  EXPECT_EQ(DigestInName("/a/database.json", "database-", ".json"), "");
  EXPECT_EQ(DigestInName("/a/x" + digest + ".json", "", ".json"), "");
  EXPECT_EQ(DigestInName("", "", ""), "");
}

TEST(GetFileTest, WithoutACacheItIsTheOriginal) {
  ASSERT_OK_AND_ASSIGN(const CachedFile got, GetFile(nullptr, DigestOf("x"), "/somewhere"));
  EXPECT_EQ(got.path(), "/somewhere");
  EXPECT_FALSE(got.is_copy());
}

}  // namespace
}  // namespace trainyard::cache
