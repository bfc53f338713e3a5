#!/usr/bin/env bash
# Compiles, without code generation, every source that locks a mutex with clang's -Wthread-safety as an error: g++ does
# not check the annotations. Needs a build before it, for the generated headers.
set -uo pipefail
cd "$(dirname "$0")/.."

# A source locks if it, or the header of its own name, includes the annotated mutex.
sources=$(git grep -l '"base/mutex.h"' -- '*.h' '*.cc' | sed 's/\.h$/.cc/' | sort -u)
check() {
  [ -f "$1" ] || exit 0  # a header without a source
  clang++ -std=c++20 -fsyntax-only -w -Wthread-safety -Werror=thread-safety -DSPDLOG_SHARED_LIB -DSPDLOG_COMPILED_LIB \
    -DSPDLOG_FMT_EXTERNAL -I. -Ibazel-bin "$1"
}
export -f check
echo "$sources" | xargs -P 2 -I{} bash -c 'check {}'
