"""One precompiled header of standard and Abseil headers, which take longer to parse than most of our sources.

GCC takes "common.h.gch" in place of "common.h" where it would open that first, if it was compiled with the same flags of
code generation; where those differ it reads "common.h", which is slower and otherwise the same.
"""

load("@rules_cc//cc:find_cc_toolchain.bzl", "find_cc_toolchain", "use_cc_toolchain")

def _precompiled_header_impl(ctx):
    toolchain = find_cc_toolchain(ctx)
    features = cc_common.configure_features(
        ctx = ctx,
        cc_toolchain = toolchain,
        requested_features = ctx.features,
        unsupported_features = ctx.disabled_features,
    )

    # Not beside the source: a compiler that looks for it must not find that one, which has no .gch, first.
    header = ctx.actions.declare_file(ctx.attr.name + ".h")
    ctx.actions.symlink(output = header, target_file = ctx.file.src)
    compiled = ctx.actions.declare_file(ctx.attr.name + ".h.gch")
    variables = cc_common.create_compile_variables(
        feature_configuration = features,
        cc_toolchain = toolchain,
        user_compile_flags = ctx.fragments.cpp.copts + ctx.fragments.cpp.cxxopts,
        source_file = ctx.file.src.path,
        output_file = compiled.path,
        use_pic = ctx.var["COMPILATION_MODE"] != "opt",
    )
    arguments = cc_common.get_memory_inefficient_command_line(
        feature_configuration = features,
        action_name = "c++-compile",
        variables = variables,
    )
    ctx.actions.run(
        executable = toolchain.compiler_executable,
        arguments = ["-x", "c++-header"] + arguments,
        outputs = [compiled],
        inputs = depset([ctx.file.src], transitive = [toolchain.all_files]),
        mnemonic = "CppPrecompile",
        progress_message = "Precompiling " + ctx.file.src.short_path,
        env = {"PATH": "/usr/bin:/bin"},
    )
    headers = depset([header, compiled])
    return [
        CcInfo(compilation_context = cc_common.create_compilation_context(headers = headers)),
        DefaultInfo(files = headers),
    ]

precompiled_header = rule(
    implementation = _precompiled_header_impl,
    attrs = {
        "src": attr.label(allow_single_file = [".h"], mandatory = True),
        "_cc_toolchain": attr.label(default = "@bazel_tools//tools/cpp:current_cc_toolchain"),
    },
    fragments = ["cpp"],
    toolchains = use_cc_toolchain(),
)
