"""CUDA twins of ops: compiled by nvcc (--config=cuda), or by the host's compiler for the emulated device (--config=simt)."""

load("@rules_cc//cc:find_cc_toolchain.bzl", "find_cc_toolchain", "use_cc_toolchain")

CUDA = "/usr/local/cuda"

# H100 and H200, B200, RTX 50xx and PRO 6000; PTX for what comes after.
GENCODE = [
    "arch=compute_90a,code=sm_90a",
    "arch=compute_100a,code=sm_100a",
    "arch=compute_120a,code=sm_120a",
    "arch=compute_90,code=compute_90",
]

def _nvcc_impl(ctx):
    toolchain = find_cc_toolchain(ctx)
    features = cc_common.configure_features(
        ctx = ctx,
        cc_toolchain = toolchain,
        requested_features = ctx.features,
        unsupported_features = ctx.disabled_features,
    )
    deps = [dep[CcInfo] for dep in ctx.attr.deps]
    compilation = cc_common.merge_cc_infos(cc_infos = deps).compilation_context
    objects = []
    for src in ctx.files.srcs:
        out = ctx.actions.declare_file("_objs/%s/%s.o" % (ctx.label.name, src.basename[:-len(".cu")]))
        args = ctx.actions.args()
        args.add_all(["-ccbin", "/usr/bin/g++", "-std=c++20", "-O3", "-lineinfo", "--expt-relaxed-constexpr"])
        args.add_all(["--extended-lambda", "-fmad=false", "-Xcompiler", "-fPIC,-march=x86-64-v3,-Wall,-Wno-unknown-pragmas"])
        args.add_all(["-I", ".", "-I", ctx.bin_dir.path])
        args.add_all(ctx.attr.gencode, before_each = "-gencode")
        args.add_all(compilation.defines, before_each = "-D")
        args.add_all(ctx.attr.copts + ["-c", src, "-o", out])
        ctx.actions.run(
            executable = CUDA + "/bin/nvcc",
            arguments = [args],
            outputs = [out],
            inputs = depset([src], transitive = [compilation.headers]),
            mnemonic = "Nvcc",
            progress_message = "nvcc " + src.short_path,
            env = {"PATH": "/usr/bin:/bin:" + CUDA + "/bin"},
        )
        objects.append(out)
    outputs = cc_common.create_compilation_outputs(objects = depset(objects), pic_objects = depset(objects))
    linking, _ = cc_common.create_linking_context_from_compilation_outputs(
        actions = ctx.actions,
        feature_configuration = features,
        cc_toolchain = toolchain,
        compilation_outputs = outputs,
        name = ctx.label.name,
        linking_contexts = [dep.linking_context for dep in deps],
        disallow_dynamic_library = True,
    )
    return [CcInfo(compilation_context = compilation, linking_context = linking), DefaultInfo(files = depset(objects))]

# One object for each .cu, for --config=cuda only: mark it "manual", so that a machine without the toolkit builds //...
nvcc_library = rule(
    implementation = _nvcc_impl,
    attrs = {
        "copts": attr.string_list(),
        "deps": attr.label_list(providers = [CcInfo]),
        "gencode": attr.string_list(default = GENCODE),
        "srcs": attr.label_list(allow_files = [".cu"]),
        "_cc_toolchain": attr.label(default = "@bazel_tools//tools/cpp:current_cc_toolchain"),
    },
    fragments = ["cpp"],
    toolchains = use_cc_toolchain(),
)

def _link_only_impl(ctx):
    linking = cc_common.merge_cc_infos(cc_infos = [dep[CcInfo] for dep in ctx.attr.deps]).linking_context
    return [CcInfo(linking_context = linking)]

# The objects of `deps` without their headers: what depends on it is not compiled again when those change.
link_only = rule(
    implementation = _link_only_impl,
    attrs = {"deps": attr.label_list(providers = [CcInfo])},
)

def cuda_twin(name, src, deps, copts = [], nvcc_copts = []):
    """The objects of one .cu file, by the build's backend. Depend on `cuda_twin_deps(name)`.

    Args:
      name: prefix of the targets.
      src: the .cu file.
      deps: libraries whose headers it includes, beside //kernels/core:kernel_parts.
      copts: of the host's compiler.
      nvcc_copts: of nvcc.
    """
    deps = deps + ["//kernels/core:kernel_parts"]
    nvcc_library(
        name = name + "_nvcc",
        srcs = [src],
        copts = nvcc_copts,
        gencode = select({
            "//third_party:sm_90a": GENCODE[:1],
            "//conditions:default": GENCODE,
        }),
        tags = ["manual"],
        deps = deps + ["//third_party:cudart"],
    )
    native.genrule(
        name = name + "_simt_source",
        outs = [name + "_simt.cc"],
        cmd = "echo '#include \"%s/%s\"' > $@" % (native.package_name(), src),
        tags = ["manual"],
    )
    native.cc_library(
        name = name + "_simt",
        srcs = [name + "_simt.cc"],
        # No contraction: each product and sum rounds for itself, as with nvcc's -fmad=false. Kernels that a template
        # does not need are left out by nvcc without a word.
        copts = copts + ["-ffp-contract=off", "-Wno-unused-function", "-Wno-unknown-pragmas"],
        tags = ["manual"],
        textual_hdrs = [src],
        deps = deps,
    )
    for backend in ["nvcc", "simt"]:
        link_only(
            name = name + "_%s_objects" % backend,
            tags = ["manual"],
            deps = [":%s_%s" % (name, backend)],
        )

def cuda_twin_deps(name):
    return select({
        "//third_party:cuda": [":" + name + "_nvcc_objects"],
        "//third_party:simt": [":" + name + "_simt_objects"],
        "//conditions:default": [],
    })

# For the file that picks the backend (kernels/core/dispatch.h).
CUDA_DEFINES = select({
    "//third_party:cuda": ["TY_CUDA=1"],
    "//third_party:simt": ["TY_CUDA=1"],
    "//conditions:default": [],
})
