"""An op of kernels/: library, tests and benchmark from the naming rule of one op.

<name>.h        the contract: formula, source, shapes, dtypes
<name>.cc       checks its arguments and picks the backend
<name>_cpu.cc   the plain loop, vectorised by the compiler
<name>_cuda.cu  the same for CUDA devices (cuda = True)
<name>_test.cc, <name>_bench.cc

<name>_test runs on the CPU; <name>_cuda_test is the same program on the CUDA device of the build, emulated or real.
"""

load(":cuda.bzl", "CUDA_DEFINES", "cuda_twin", "cuda_twin_deps")

# Kernels are optimised in every configuration: an unoptimised matrix loop makes tests unbearably slow and finds nothing.
KERNEL_COPTS = ["-O3"]

def op_library(name, deps = [], hdrs = [], srcs = [], test_deps = [], bench = True, test_size = "small", cuda = False, cuda_deps = []):
    """See the file's comment. `hdrs`, `srcs`: files beyond the naming rule; headers among them for <name>_cuda.cu too.

    `cuda_deps`: what the library needs of CUDA builds beside <name>_cuda.cu, a select()."""
    headers = [src for src in srcs if src.endswith(".h")]
    native.cc_library(
        name = name + "_headers",
        hdrs = [name + ".h"] + hdrs + headers,
        deps = deps + ["//kernels/core"],
    )

    # A library of its own: what does not know which backends there are is compiled once for all builds.
    native.cc_library(
        name = name + "_cpu",
        srcs = [name + "_cpu.cc"] + [src for src in srcs if not src.endswith(".h")],
        copts = KERNEL_COPTS,
        deps = [":" + name + "_headers"],
    )
    if cuda:
        cuda_twin(
            name = name + "_cuda",
            src = name + "_cuda.cu",
            copts = KERNEL_COPTS,
            deps = [":" + name + "_headers"],
        )
    native.cc_library(
        name = name,
        srcs = [name + ".cc"] + headers,
        hdrs = [name + ".h"] + hdrs,
        copts = KERNEL_COPTS,
        local_defines = CUDA_DEFINES if cuda else [],
        visibility = ["//visibility:public"],
        deps = deps + [":" + name + "_cpu", "//kernels/core"] + (cuda_twin_deps(name + "_cuda") if cuda else []) + cuda_deps,
    )
    native.cc_test(
        name = name + "_test",
        size = test_size,
        srcs = [name + "_test.cc"],
        copts = KERNEL_COPTS,
        deps = [":" + name, "//kernels/testing", "//third_party:gtest_main"] + deps + test_deps,
    )
    if cuda:
        native.sh_test(
            name = name + "_cuda_test",
            size = "medium",
            srcs = ["//kernels/testing:on_cuda.sh"],
            args = ["$(location :%s_test)" % name],
            data = [":%s_test" % name],
            tags = ["gpu"],
        )
    if bench:
        native.cc_binary(
            name = name + "_bench",
            testonly = True,
            srcs = [name + "_bench.cc"],
            copts = KERNEL_COPTS,
            deps = [":" + name, "//kernels/testing", "//third_party:benchmark_main"] + deps + test_deps,
        )
