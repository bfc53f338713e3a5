"""Shapes of the kinds that are not Kubernetes' own, as far as deploy/ uses them: no schema of theirs is at hand, so only the
fields named here may stand in a manifest. Written after the published API references of each project.

A shape is a type, a dict of fields ("name!" must be there), a list of one shape, or the name of a Kubernetes definition.
"""
TEXTS = {"*": str}
SELECTOR = "io.k8s.apimachinery.pkg.apis.meta.v1.LabelSelector"
ENDPOINT = {"port!": str, "path": str, "interval": str, "honorLabels": bool, "scheme": str}
ISSUER = {"name!": str, "kind": str, "group": str}

SPECS = {
    ("monitoring.coreos.com/v1", "ServiceMonitor"): {"selector!": SELECTOR, "endpoints!": [ENDPOINT]},
    ("monitoring.coreos.com/v1", "PodMonitor"): {"selector!": SELECTOR, "podMetricsEndpoints!": [ENDPOINT]},
    ("monitoring.coreos.com/v1", "PrometheusRule"): {"groups!": [{"name!": str, "rules!": [{
        "record": str, "alert": str, "expr!": str, "for": str, "labels": TEXTS, "annotations": TEXTS}]}]},
    ("jobset.x-k8s.io/v1alpha2", "JobSet"): {
        "suspend": bool,
        "network": {"enableDNSHostnames": bool, "subdomain": str, "publishNotReadyAddresses": bool},
        "failurePolicy": {"maxRestarts": int},
        "replicatedJobs!": [{"name!": str, "replicas": int, "template!": "io.k8s.api.batch.v1.JobTemplateSpec"}]},
    ("kueue.x-k8s.io/v1beta1", "ResourceFlavor"): {"nodeLabels": TEXTS},
    ("kueue.x-k8s.io/v1beta1", "ClusterQueue"): {
        "namespaceSelector": SELECTOR,
        "resourceGroups!": [{"coveredResources!": [str], "flavors!": [{
            "name!": str, "resources!": [{"name!": str, "nominalQuota!": str}]}]}]},
    ("kueue.x-k8s.io/v1beta1", "LocalQueue"): {"clusterQueue!": str},
    ("cert-manager.io/v1", "Issuer"): {"selfSigned": {}, "ca": {"secretName!": str}},
    ("cert-manager.io/v1", "Certificate"): {
        "secretName!": str, "isCA": bool, "commonName": str, "dnsNames": [str], "uris": [str], "ipAddresses": [str],
        "duration": str, "renewBefore": str, "usages": [str], "issuerRef!": ISSUER,
        "subject": {"organizations": [str], "organizationalUnits": [str]},
        "privateKey": {"algorithm": str, "size": int, "rotationPolicy": str}},
}


def knows(thing):
    return (thing["apiVersion"], thing["kind"]) in SPECS


def problems(thing, schemas):
    found = []
    outside = set(thing) - {"apiVersion", "kind", "metadata", "spec"}
    if outside:
        found.append("%s: not fields" % sorted(outside))
    _check(thing.get("spec", {}), SPECS[(thing["apiVersion"], thing["kind"])], ".spec", schemas, found)
    return found


def _check(value, shape, place, schemas, found):
    if isinstance(shape, str):
        found += [place + problem for problem in schemas.problems(value, shape)]
    elif isinstance(shape, type):
        if not isinstance(value, shape) or (shape is int and isinstance(value, bool)):
            found.append("%s: %r is not %s" % (place, value, shape.__name__))
    elif isinstance(shape, list):
        if not isinstance(value, list):
            found.append("%s: %r is not a list" % (place, value))
            return
        for i, item in enumerate(value):
            _check(item, shape[0], "%s[%d]" % (place, i), schemas, found)
    elif not isinstance(value, dict):
        found.append("%s: %r is not an object" % (place, value))
    else:
        fields = {name.rstrip("!"): one for name, one in shape.items()}
        for name in shape:
            if name.endswith("!") and name[:-1] not in value:
                found.append("%s: %s is missing" % (place, name[:-1]))
        for name, item in value.items():
            if name in fields or "*" in fields:
                _check(item, fields.get(name, fields.get("*")), "%s.%s" % (place, name), schemas, found)
            else:
                found.append("%s: %s is not a field" % (place, name))
