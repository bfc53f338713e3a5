"""cc_library, cc_binary and cc_test as all BUILD files of ours use them: with the precompiled header (precompiled.bzl)."""

_DEPS = ["//third_party:common"]
_COPTS = ["-include", "third_party/common.h"]

def cc_library(name, srcs = [], deps = [], copts = [], **kwargs):
    # Without sources there is nothing to compile, and nothing to hand on.
    if srcs:
        deps = deps + _DEPS
        copts = _COPTS + copts
    native.cc_library(name = name, srcs = srcs, deps = deps, copts = copts, **kwargs)

def cc_binary(name, deps = [], copts = [], **kwargs):
    native.cc_binary(name = name, deps = deps + _DEPS, copts = _COPTS + copts, **kwargs)

def cc_test(name, deps = [], copts = [], **kwargs):
    native.cc_test(name = name, deps = deps + _DEPS, copts = _COPTS + copts, **kwargs)
