"""Renders the part of Kustomize that deploy/ uses, so that a check needs no Kubernetes program.

Known: resources (files and folders), namespace, patches by path (strategic merge), configMapGenerator (files, envs, labels)
without name suffixes. Everything else in a kustomization.yaml is refused, so that this cannot render less than Kustomize
would. check_manifests.py compares with `kubectl kustomize` where that is installed.
"""
import os

import yaml

KNOWN = {"apiVersion", "kind", "namespace", "resources", "patches", "generatorOptions", "configMapGenerator"}
CLUSTER_WIDE = {"Namespace", "ClusterRole", "ClusterRoleBinding", "PersistentVolume", "StorageClass", "PriorityClass",
                "ClusterIssuer", "ResourceFlavor", "ClusterQueue"}
# Lists that are merged by a key; all others are replaced.
MERGE_KEYS = {"containers": "name", "initContainers": "name", "volumes": "name", "env": "name",
              "volumeMounts": "mountPath", "imagePullSecrets": "name"}


class BadKustomization(Exception):
    pass


def load_all(path):
    with open(path, encoding="utf-8") as file:
        return [document for document in yaml.safe_load_all(file) if document is not None]


def merge(base, patch, name="", in_container=False):
    """Strategic merge of one value into another."""
    if isinstance(base, dict) and isinstance(patch, dict):
        merged = dict(base)
        for key, value in patch.items():
            if key.startswith("$"):
                raise BadKustomization("directive %s is not known here" % key)
            if value is None:
                merged.pop(key, None)
            else:
                merged[key] = merge(base.get(key), value, key, name in ("containers", "initContainers"))
        return merged
    if isinstance(base, list) and isinstance(patch, list):
        key = MERGE_KEYS.get(name)
        if name == "ports":
            key = "containerPort" if in_container else "port"
        if key is None:
            return patch
        by_key = {item[key]: item for item in base}
        for item in patch:
            by_key[item[key]] = merge(by_key.get(item[key]), item, name)
        order = [item[key] for item in base] + [item[key] for item in patch if item[key] not in
                                                {old[key] for old in base}]
        return [by_key[k] for k in order]
    return patch


def identity(thing):
    return thing["apiVersion"], thing["kind"], thing["metadata"]["name"]


def config_map(folder, generator, options):
    labels = dict(options.get("labels", {}))
    labels.update(generator.get("options", {}).get("labels", {}))
    data = {}
    unknown = set(generator) - {"name", "files", "envs", "options"}
    if unknown:
        raise BadKustomization("%s: configMapGenerator with %s" % (folder, sorted(unknown)))
    for name in generator.get("files", []):
        with open(os.path.join(folder, name), encoding="utf-8") as file:
            data[os.path.basename(name)] = file.read()
    for name in generator.get("envs", []):
        with open(os.path.join(folder, name), encoding="utf-8") as file:
            for line in file:
                if line.strip() and not line.startswith("#"):
                    key, value = line.rstrip("\n").split("=", 1)
                    data[key] = value
    metadata = {"name": generator["name"]}
    if labels:
        metadata["labels"] = labels
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def render(folder):
    """All objects of the kustomization in `folder`."""
    path = os.path.join(folder, "kustomization.yaml")
    [kustomization] = load_all(path)
    unknown = set(kustomization) - KNOWN
    if unknown:
        raise BadKustomization("%s: not known here: %s" % (path, sorted(unknown)))
    things = []
    for resource in kustomization.get("resources", []):
        place = os.path.join(folder, resource)
        things += render(place) if os.path.isdir(place) else load_all(place)
    options = kustomization.get("generatorOptions", {})
    for generator in kustomization.get("configMapGenerator", []):
        if not options.get("disableNameSuffixHash"):
            raise BadKustomization("%s: names with hashes are not known here" % path)
        things.append(config_map(folder, generator, options))
    for patch in kustomization.get("patches", []):
        if set(patch) != {"path"}:
            raise BadKustomization("%s: a patch may only have a path" % path)
        for change in load_all(os.path.join(folder, patch["path"])):
            found = [i for i, thing in enumerate(things) if identity(thing) == identity(change)]
            if len(found) != 1:
                raise BadKustomization("%s: %s is not among the resources" % (patch["path"], identity(change)))
            things[found[0]] = merge(things[found[0]], change)
    namespace = kustomization.get("namespace")
    if namespace:
        for thing in things:
            if thing["kind"] == "Namespace":
                thing["metadata"]["name"] = namespace
            elif thing["kind"] not in CLUSTER_WIDE:
                thing["metadata"]["namespace"] = namespace
    names = [identity(thing) for thing in things]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise BadKustomization("%s: twice: %s" % (path, sorted(twice)))
    return things
