"""Protocol buffers through Debian's protoc: messages, and with grpc = True the services too."""

def ty_proto_library(name, src, deps = [], grpc = False, visibility = None):
    """One .proto as a cc_library; include it as "<package>/<file>.pb.h".

    Args:
      name: target name; `<name>_src` is the filegroup that importing protos need.
      src: the .proto file.
      deps: other ty_proto_library targets that `src` imports.
      grpc: also generate the services (callback API and mocks). The messages alone are then `<name>_messages`, for
        code that may not depend on gRPC.
      visibility: as usual.
    """
    messages = name + "_messages" if grpc else name
    base = native.package_name() + "/" + src[:-len(".proto")]
    outs = [src[:-len(".proto")] + ext for ext in [".pb.h", ".pb.cc"]]
    command = "protoc -I. --cpp_out=$(GENDIR)"
    if grpc:
        outs += [src[:-len(".proto")] + ext for ext in [".grpc.pb.h", ".grpc.pb.cc", "_mock.grpc.pb.h"]]
        command += " --grpc_out=generate_mock_code=true:$(GENDIR) --plugin=protoc-gen-grpc=/usr/bin/grpc_cpp_plugin"
    native.filegroup(
        name = name + "_src",
        srcs = [src] + [dep + "_src" for dep in deps],
        visibility = visibility,
    )
    native.genrule(
        name = name + "_gen",
        srcs = [src] + [dep + "_src" for dep in deps],
        outs = outs,
        cmd = command + " " + base + ".proto",
    )
    native.cc_library(
        name = messages,
        srcs = [src[:-len(".proto")] + ".pb.cc"],
        hdrs = [src[:-len(".proto")] + ".pb.h"],
        copts = ["-w"],
        visibility = visibility,
        deps = deps + ["//third_party:protobuf"],
    )
    if grpc:
        # So that a proto may name `<name>_messages` in its deps too.
        native.filegroup(
            name = messages + "_src",
            srcs = [name + "_src"],
            visibility = visibility,
        )
        native.cc_library(
            name = name,
            srcs = [out for out in outs if out.endswith(".grpc.pb.cc")],
            hdrs = [out for out in outs if out.endswith(".grpc.pb.h") or out.endswith("_mock.grpc.pb.h")],
            copts = ["-w"],
            visibility = visibility,
            deps = [":" + messages, "//third_party:grpc"],
        )
