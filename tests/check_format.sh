#!/usr/bin/env bash
# Fails if a tracked C++ or proto file is not as clang-format 14 writes it; prints the names.
set -euo pipefail
cd "$(dirname "$0")/.."
bad=$(git ls-files '*.h' '*.cc' '*.cu' '*.cuh' | xargs -r clang-format-14 --dry-run -Werror 2>&1 |
  grep -oE '^[^:]+:[0-9]+' | cut -d: -f1 | sort -u || true)
[ -z "$bad" ] && exit 0
echo "Not formatted; run: clang-format-14 -i" $bad
exit 1
