#!/usr/bin/env bash
# Runs an op's test on the CUDA device of the build (kernels/testing/test_stream.h).
set -euo pipefail
TY_TEST_DEVICE=cuda exec "$1"
