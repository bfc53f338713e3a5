#!/usr/bin/env python3
"""Bill of materials of an image, as CycloneDX 1.5 JSON: the Debian packages that its files come from, with their versions,
and Trainyard's programs with their digests. Also copies each package's copyright file into the image."""
import argparse
import glob
import hashlib
import json
import os
import shutil
import subprocess


def names_of(path):
    """Names under which dpkg may know a file: /lib and /usr/lib are one folder, but packages name one of the two."""
    real = os.path.realpath(path)
    return list(dict.fromkeys([path, real, real.replace("/usr/lib", "/lib", 1), "/usr" + path]))


def owners(paths):
    """Debian packages of files, asked in one go: dpkg reads all its lists for every question."""
    asked = [name for path in paths for name in names_of(path)]
    answer = subprocess.run(["dpkg-query", "-S"] + asked, capture_output=True, text=True).stdout
    known = {}
    for line in answer.splitlines():
        packages, _, path = line.rpartition(": ")
        known[path] = packages.split(",")[0]
    found = set()
    for path in paths:
        package = next((known[name] for name in names_of(path) if name in known), None)
        if package is None:
            raise SystemExit("sbom.py: no Debian package owns %s" % path)
        found.add(package)
    return found


def component(package):
    fields = ["Package", "Version", "Architecture", "source:Package", "source:Version"]
    line = subprocess.run(["dpkg-query", "-W", "-f", "\t".join("${%s}" % field for field in fields), package],
                          capture_output=True, text=True, check=True).stdout
    name, version, architecture, source, source_version = line.split("\t")
    return {
        "type": "library",
        "bom-ref": "pkg:deb/debian/%s@%s?arch=%s" % (name, version, architecture),
        "name": name,
        "version": version,
        "purl": "pkg:deb/debian/%s@%s?arch=%s&distro=debian-12" % (name, version, architecture),
        "properties": [{"name": "debian:source", "value": "%s %s" % (source, source_version)}],
    }


def digest(path):
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", required=True, help="root file system of the image")
    parser.add_argument("--role", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("files", nargs="+", help="files of packages, or PACKAGE:FILE")
    arguments = parser.parse_args()
    packages = {entry.split(":")[0] for entry in arguments.files if not entry.startswith("/")}
    packages |= owners([entry for entry in arguments.files if entry.startswith("/")])
    components = [component(package) for package in sorted(packages)]
    for part in components:
        text = "/usr/share/doc/%s/copyright" % part["name"]
        if os.path.exists(text):
            folder = os.path.join(arguments.root, "usr/share/doc", part["name"])
            os.makedirs(folder, exist_ok=True)
            shutil.copyfile(text, os.path.join(folder, "copyright"))
    for program in sorted(glob.glob(os.path.join(arguments.root, "usr/local/bin/*"))):
        components.append({"type": "application", "name": os.path.basename(program), "bom-ref": os.path.basename(program),
                           "hashes": [{"alg": "SHA-256", "content": digest(program)}]})
    with open(arguments.output, "w", encoding="utf-8") as file:
        json.dump({
            "bomFormat": "CycloneDX",
            "specVersion": "1.5",
            "version": 1,
            "metadata": {"component": {"type": "container", "name": "trainyard-" + arguments.role}},
            "components": components,
        }, file, indent=1)
        file.write("\n")


if __name__ == "__main__":
    main()
