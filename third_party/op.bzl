"""An op of kernels/: library, CPU test and benchmark from the naming rule of one op.

<name>.h      the contract: formula, source, shapes, dtypes
<name>.cc     checks its arguments and picks the backend
<name>_cpu.cc the plain loop, vectorised by the compiler
<name>_test.cc, <name>_bench.cc
"""

# Kernels are optimised in every configuration: an unoptimised matrix loop makes tests unbearably slow and finds nothing.
KERNEL_COPTS = ["-O3"]

def op_library(name, deps = [], hdrs = [], srcs = [], test_deps = [], bench = True, test_size = "small"):
    """See the file's comment. `hdrs`, `srcs`: files beyond the naming rule."""
    native.cc_library(
        name = name,
        srcs = [name + ".cc", name + "_cpu.cc"] + srcs,
        hdrs = [name + ".h"] + hdrs,
        copts = KERNEL_COPTS,
        visibility = ["//visibility:public"],
        deps = deps + ["//kernels/core"],
    )
    native.cc_test(
        name = name + "_test",
        size = test_size,
        srcs = [name + "_test.cc"],
        copts = KERNEL_COPTS,
        deps = [":" + name, "//kernels/testing", "//third_party:gtest_main"] + deps + test_deps,
    )
    if bench:
        native.cc_binary(
            name = name + "_bench",
            testonly = True,
            srcs = [name + "_bench.cc"],
            copts = KERNEL_COPTS,
            deps = [":" + name, "//kernels/testing", "//third_party:benchmark_main"] + deps + test_deps,
        )
