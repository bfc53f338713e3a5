"""Tests that run real processes on loopback."""

def process_test(name, deps = ["//third_party:gtest_main"]):
    """<name>_test.cc as a test of its own, alone on the machine and outside the sandbox.

    The tag `process` keeps it out of the sanitizer runs, whose builds of the programs would only repeat what the unit
    tests show.
    """
    native.cc_test(
        name = name + "_test",
        size = "large",
        srcs = [name + "_test.cc"],
        tags = [
            "exclusive",
            "local",
            "process",
        ],
        deps = deps + [
            "//base",
            "//base/testing",
            "//tests/support:cluster",
            "//tests/support:process",
            "//tests/support:undisturbed",
            "//third_party:absl",
        ],
    )
