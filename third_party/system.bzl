"""A Debian library: nothing but link flags, since its headers are on the compiler's own path."""

def system_library(name, libs = [], defines = [], deps = []):
    native.cc_library(
        name = name,
        defines = defines,
        linkopts = ["-l" + lib for lib in libs] + ["-pthread"],
        deps = deps,
    )
