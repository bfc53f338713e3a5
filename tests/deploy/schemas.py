"""Kubernetes' own OpenAPI schemas, from the PyPI package kubernetes-validate: one version, one hash."""
import hashlib
import json
import os
import subprocess
import sys
import zipfile

WHEEL = "kubernetes_validate-1.37.0-py3-none-any.whl"
SHA256 = "85136d018a27b50ec7fc049d902bfa5193f5976807e6c0f408e3ab6fe078cad9"
# The oldest and the newest Kubernetes that the manifests are held against.
VERSIONS = ["1.29.0", "1.37.0"]


def wheel():
    """Path of the package; fetches it on the first call on a machine."""
    cache = os.path.join(os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache")), "trainyard-deploy")
    path = os.path.join(cache, WHEEL)
    if not os.path.exists(path):
        os.makedirs(cache, exist_ok=True)
        name, version = WHEEL.split("-")[:2]
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
                   "--only-binary", ":all:", "--dest", cache, "%s==%s" % (name.replace("_", "-"), version)]
        subprocess.run(command, check=True, timeout=300)
    with open(path, "rb") as file:
        digest = hashlib.sha256(file.read()).hexdigest()
    if digest != SHA256:
        os.remove(path)
        raise SystemExit("%s has the SHA-256 %s and not %s; removed" % (path, digest, SHA256))
    return path


class Schemas:
    def __init__(self, version):
        self.version = version
        self._zip = zipfile.ZipFile(wheel())
        self._folder = "kubernetes_validate/kubernetes-json-schema/v%s-local-strict/" % version
        self._definitions = self._read("_definitions.json")["$defs"]
        self._kinds = {}
        for name, definition in self._definitions.items():
            for kind in definition.get("x-kubernetes-group-version-kind", []):
                self._kinds[(kind["group"], kind["version"], kind["kind"])] = name

    def _read(self, name):
        return json.loads(self._zip.read(self._folder + name))

    def knows(self, thing):
        return self._name(thing) is not None

    def _name(self, thing):
        group, _, version = thing["apiVersion"].rpartition("/")
        return self._kinds.get((group, version, thing["kind"]))

    def problems(self, thing, definition=None):
        """What is wrong with an object: unknown fields, wrong types, missing ones. Each names its place."""
        name = definition or self._name(thing)
        if name is None:
            return ["%s %s is not a kind of Kubernetes %s" % (thing["apiVersion"], thing["kind"], self.version)]
        found = []
        self._check(thing, self._definitions[name], "", found)
        return found

    def _check(self, value, schema, place, found):
        if "$ref" in schema:
            self._check(value, self._definitions[schema["$ref"].rsplit("/", 1)[1]], place, found)
            return
        for choice in ("oneOf", "anyOf"):
            if choice in schema:
                for one in schema[choice]:
                    trial = []
                    self._check(value, one, place, trial)
                    if not trial:
                        break
                else:
                    found.append("%s: %r fits nothing that may stand here" % (place, value))
        types = schema.get("type")
        types = [types] if isinstance(types, str) else types
        if types and not any(_is(value, one) for one in types):
            found.append("%s: %r is not %s" % (place, value, " or ".join(types)))
            return
        if "enum" in schema and value not in schema["enum"]:
            found.append("%s: %r is none of %s" % (place, value, schema["enum"]))
        if isinstance(value, dict):
            properties = schema.get("properties", {})
            more = schema.get("additionalProperties")
            for name in schema.get("required", []):
                if name not in value:
                    found.append("%s: %s is missing" % (place, name))
            for name, item in value.items():
                if name in properties:
                    self._check(item, properties[name], place + "." + name, found)
                elif isinstance(more, dict):
                    self._check(item, more, place + "." + name, found)
                elif more is False:
                    found.append("%s: %s is not a field" % (place, name))
        if isinstance(value, list) and isinstance(schema.get("items"), dict):
            for i, item in enumerate(value):
                self._check(item, schema["items"], "%s[%d]" % (place, i), found)


def _is(value, kind):
    return {
        "object": isinstance(value, dict),
        "array": isinstance(value, list),
        "string": isinstance(value, str),
        "boolean": isinstance(value, bool),
        "integer": isinstance(value, int) and not isinstance(value, bool),
        "number": isinstance(value, (int, float)) and not isinstance(value, bool),
        "null": value is None,
    }[kind]
