#!/usr/bin/python3
"""Files as constants of a C++ source: embed.py FILE... > page_files.cc. A file's address is its name.

The ETag is a digest of the content, so a browser asks again after an upgrade and otherwise keeps what it has.
"""
import hashlib
import os
import sys

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


def literal(data):
    """Octal escapes of three digits: what follows cannot be taken for a part of them."""
    lines = []
    for begin in range(0, len(data), 64):
        piece = data[begin:begin + 64]
        lines.append('"%s"' % "".join(
            chr(byte) if 32 <= byte < 127 and byte not in b'"\\?' else "\\%03o" % byte for byte in piece))
    return "\n    ".join(lines) or '""'


def main():
    print('#include "coordinator/web/page_files.h"\n')
    print("namespace trainyard::coordinator {\nnamespace {\n")
    rows = []
    for path in sorted(sys.argv[1:], key=os.path.basename):
        with open(path, "rb") as file:
            data = file.read()
        name = os.path.basename(path)
        constant = "k" + "".join(word.capitalize() for word in name.replace(".", "_").replace("-", "_").split("_"))
        print("const char %s[] =\n    %s;\n" % (constant, literal(data)))
        digest = hashlib.sha256(data).hexdigest()[:24]
        rows.append('    {"/%s", "%s", "\\"%s\\"", absl::string_view(%s, %d)},' % (
            name, TYPES[os.path.splitext(name)[1]], digest, constant, len(data)))
    print("}  // namespace\n")
    print("const std::vector<PageFile>& PageFiles() {")
    print("  static const auto* const kFiles = new std::vector<PageFile>{\n%s\n  };" % "\n".join(rows))
    print("  return *kFiles;\n}\n\n}  // namespace trainyard::coordinator")


if __name__ == "__main__":
    main()
