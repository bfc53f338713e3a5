"""What the rendered manifests must hold (control-plane requirements CP-74 to CP-78), as a function of the objects alone.

`problems(overlay, things)` returns sentences, each with the object it is about.
"""
import re

LABEL = "app.kubernetes.io/"
GRACE_SECONDS = 60 + 60   # default stop_grace of jobs, and kill_timeout after it


def pods(things):
    """(object, pod template's labels, pod spec) of everything that makes pods."""
    for thing in things:
        spec = thing.get("spec", {})
        if thing["kind"] in ("StatefulSet", "DaemonSet", "Deployment", "Job"):
            yield thing, spec["template"]["metadata"].get("labels", {}), spec["template"]["spec"]
        elif thing["kind"] == "JobSet":
            for job in spec["replicatedJobs"]:
                template = job["template"]["spec"]["template"]
                yield thing, template["metadata"].get("labels", {}), template["spec"]


def containers(pod):
    return pod.get("initContainers", []) + pod["containers"]


def component(labels):
    return labels.get(LABEL + "component")


def names(thing):
    return "%s %s" % (thing["kind"], thing["metadata"]["name"])


def flags(container):
    """Flag -> value of a container's arguments."""
    return dict((argument.split("=", 1) + [""])[:2] for argument in container.get("args", []))


def selects(selector, labels):
    return all(labels.get(key) == value for key, value in selector.items())


def problems(overlay, things):
    found = []

    def need(thing, is_held, sentence):
        if not is_held:
            found.append("%s: %s: %s" % (overlay, names(thing), sentence))

    by_kind = {}
    for thing in things:
        by_kind.setdefault(thing["kind"], []).append(thing)
        labels = thing["metadata"].get("labels", {})
        for name in ("name", "part-of"):
            need(thing, labels.get(LABEL + name) == "trainyard", "label %s%s is not trainyard" % (LABEL, name))
    made = list(pods(things))
    if not made:
        return found   # monitoring and certificates bring no pods

    # ---- CP-75: one coordinator with its own volume, and no budget that could block a drain
    coordinators = [one for one in made if component(one[1]) == "coordinator"]
    if len(coordinators) != 1 or coordinators[0][0]["kind"] != "StatefulSet":
        return found + ["%s: the coordinator is not exactly one StatefulSet" % overlay]
    thing, coordinator_labels, coordinator = coordinators[0]
    need(thing, thing["spec"]["replicas"] == 1, "SQLite allows one coordinator")
    modes = [claim["spec"]["accessModes"] for claim in thing["spec"].get("volumeClaimTemplates", [])]
    need(thing, modes == [["ReadWriteOnce"]], "needs one volume of its own, ReadWriteOnce")
    for budget in by_kind.get("PodDisruptionBudget", []):
        spec = budget["spec"]
        need(budget, not selects(spec["selector"]["matchLabels"], coordinator_labels),
             "a budget over one coordinator blocks the drain of its node")
        need(budget, spec.get("maxUnavailable", 0) not in (0, "0%"), "lets no pod go, so drains of nodes never end")

    # ---- CP-76: workers
    workers = [one for one in made if component(one[1]) == "worker"]
    need(thing, workers, "no workers beside it")
    for owner, labels, pod in workers:
        [container] = pod["containers"]
        if owner["kind"] in ("StatefulSet", "DaemonSet"):
            need(owner, owner["spec"].get("updateStrategy", {}).get("type") == "OnDelete",
                 "a rolling update would kill training: updateStrategy must be OnDelete")
        hook = container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", [])
        need(owner, any("kill -TERM 1" in word and "kill -0 1" in word for word in hook),
             "preStop must drain the daemon (SIGTERM) and wait for its end: a second SIGTERM stops without a checkpoint")
        need(owner, pod.get("terminationGracePeriodSeconds", 30) > GRACE_SECONDS,
             "terminationGracePeriodSeconds must be above stop_grace and kill_timeout, %d s" % GRACE_SECONDS)
        limits = container["resources"].get("limits", {})
        gpus = limits.get("nvidia.com/gpu")
        asked = flags(container).get("--gpus", "none")
        need(owner, (gpus is not None) == (asked == "all"), "nvidia.com/gpu is %s, but --gpus is %s" % (gpus, asked))
        need(owner, gpus == container["resources"].get("requests", {}).get("nvidia.com/gpu"),
             "requests and limits of nvidia.com/gpu differ")
        if gpus is not None:
            shm = [volume for volume in pod["volumes"] if volume.get("emptyDir", {}).get("medium") == "Memory"]
            mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
            need(owner, [mounts.get(volume["name"]) for volume in shm] == ["/dev/shm"],
                 "/dev/shm must be a memory emptyDir: 64 MB are too small for NCCL")
        if owner["kind"] == "JobSet":
            need(owner, owner["spec"].get("suspend") is True, "must be suspended until Kueue admits it")
            need(owner, "kueue.x-k8s.io/queue-name" in owner["metadata"]["labels"], "has no queue label of Kueue")
    headless = [service for service in by_kind.get("Service", []) if service["spec"].get("clusterIP") == "None" and
                selects(service["spec"]["selector"], {LABEL + "name": "trainyard", LABEL + "component": "worker"})]
    need(thing, len(headless) == 1, "there must be one headless service of the workers")
    for service in headless:
        need(service, service["spec"].get("publishNotReadyAddresses") is True,
             "peers meet before they are ready: publishNotReadyAddresses")
        for owner, labels, _ in workers:
            need(service, selects(service["spec"]["selector"], labels), "does not select the pods of " + names(owner))
            if owner["kind"] == "StatefulSet":
                need(owner, owner["spec"]["serviceName"] == service["metadata"]["name"], "serviceName is not the service")

    # ---- CP-77: pods
    for owner, labels, pod in made:
        need(owner, pod.get("automountServiceAccountToken") is False, "mounts a token")
        need(owner, pod.get("serviceAccountName", "default") != "default", "runs as the default account")
        context = pod.get("securityContext", {})
        need(owner, context.get("runAsNonRoot") is True and context.get("runAsUser", 0) > 0, "may run as root")
        need(owner, context.get("seccompProfile", {}).get("type") == "RuntimeDefault", "has no seccomp profile")
        need(owner, not pod.get("hostPID") and not pod.get("hostIPC"), "shares the host's processes")
        if pod.get("hostNetwork"):
            need(owner, overlay == "gpu-rdma", "hostNetwork belongs into the overlay gpu-rdma only")
            need(owner, pod.get("dnsPolicy") == "ClusterFirstWithHostNet", "would not find services by name")
        for container in containers(pod):
            where = "container %s " % container["name"]
            own = container.get("securityContext", {})
            need(owner, own.get("allowPrivilegeEscalation") is False, where + "may gain privileges")
            need(owner, own.get("readOnlyRootFilesystem") is True, where + "may write its root")
            need(owner, not own.get("privileged"), where + "is privileged")
            capabilities = own.get("capabilities", {})
            need(owner, capabilities.get("drop") == ["ALL"], where + "does not drop all capabilities")
            allowed = {"own-state": ["CHOWN"]}.get(container["name"], ["IPC_LOCK"] if overlay == "gpu-rdma" else [])
            need(owner, set(capabilities.get("add", [])) <= set(allowed), where + "adds capabilities")
            if own.get("runAsUser") == 0:
                need(owner, container["name"] == "own-state" and owner["kind"] == "DaemonSet", where + "is root")
            else:
                need(owner, own.get("runAsNonRoot", True) is True, where + "may be root")
            resources = container.get("resources", {})
            need(owner, "memory" in resources.get("limits", {}), where + "has no memory limit")
            need(owner, {"cpu", "memory"} <= set(resources.get("requests", {})), where + "requests no CPU or memory")
            places = {mount["mountPath"] for mount in container.get("volumeMounts", [])}
            if container in pod["containers"]:
                need(owner, "/tmp" in places, where + "has no /tmp to write to")
            known = {volume["name"] for volume in pod.get("volumes", [])}
            known |= {claim["metadata"]["name"] for claim in owner["spec"].get("volumeClaimTemplates", [])}
            for mount in container.get("volumeMounts", []):
                need(owner, mount["name"] in known, where + "mounts %s, which is no volume" % mount["name"])
            need(owner, ":latest" not in container["image"] and ":" in container["image"], where + "has no fixed tag")
        writable = overlay in ("gpu", "gpu-rdma") and component(labels) == "worker"
        for volume in pod.get("volumes", []):
            need(owner, writable or "hostPath" not in volume, "hostPath belongs into the overlays of GPU nodes only")

    # ---- CP-74: certificates everywhere, plaintext nowhere
    for owner, labels, pod in made:
        for container in pod["containers"]:
            given = flags(container)
            need(owner, "--insecure" not in given, "speaks plaintext")
            mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
            need(owner, mounts.get("tls", {}).get("readOnly") is True, "has no read-only certificates")
            secrets = {volume["name"]: volume["secret"]["secretName"] for volume in pod["volumes"] if "secret" in volume}
            need(owner, secrets.get("tls") == "trainyard-%s-tls" % component(labels), "certificates of another part")
            for flag, name in (("--tls_cert", "tls.crt"), ("--tls_key", "tls.key"), ("--tls_ca", "ca.crt")):
                need(owner, given.get(flag) == "/etc/trainyard/tls/" + name, "%s is %s" % (flag, given.get(flag)))

    # ---- CP-78: probes, policies
    for owner, labels, pod in made:
        for container in pod["containers"]:
            ports = {port["name"]: port["containerPort"] for port in container["ports"]}
            for probe, paths in (("livenessProbe", ["/livez"]), ("readinessProbe", ["/readyz"]),
                                 ("startupProbe", ["/livez", "/readyz"])):
                got = container.get(probe, {}).get("httpGet", {})
                need(owner, got.get("path") in paths, "%s must ask %s" % (probe, " or ".join(paths)))
                need(owner, got.get("port") == "metrics", "%s must ask the plaintext port" % probe)
                need(owner, got.get("scheme", "HTTP") == "HTTP", "%s: kubelet has no client certificate" % probe)
            listen = flags(container).get("--metrics_listen", "")
            need(owner, listen == "0.0.0.0:%s" % ports.get("metrics"), "--metrics_listen %s is not the port" % listen)
            if component(labels) == "coordinator":
                web = flags(container).get("--web_listen", "")
                need(owner, web == "0.0.0.0:%s" % ports.get("web"), "--web_listen %s is not the port" % web)
    policies = [policy for policy in by_kind.get("NetworkPolicy", [])]
    deny = [policy for policy in policies if policy["spec"]["podSelector"] == {} and
            set(policy["spec"]["policyTypes"]) == {"Ingress", "Egress"} and
            not policy["spec"].get("ingress") and not policy["spec"].get("egress")]
    need(thing, len(deny) == 1, "no policy denies by default")
    for policy in policies:
        for rule in policy["spec"].get("ingress", []) + policy["spec"].get("egress", []):
            need(policy, rule.get("ports") and (rule.get("from") or rule.get("to")),
                 "a flow must name its ports and its peers")
    workers = {LABEL + "name": "trainyard", LABEL + "component": "worker"}
    need(thing, reaches(policies, workers, coordinator_labels, "grpc"), "workers cannot reach it through the policies")
    need(thing, reaches(policies, {"trainyard.dev/client": "true"}, coordinator_labels, "web"),
         "clients cannot reach the web view through the policies")
    need(thing, not reaches(policies, workers, coordinator_labels, "web"), "workers can reach the web view")

    # ---- names that refer to each other
    config_maps = {one["metadata"]["name"]: one for one in by_kind.get("ConfigMap", [])}
    claims = {one["metadata"]["name"] for one in by_kind.get("PersistentVolumeClaim", [])}
    accounts = {one["metadata"]["name"] for one in by_kind.get("ServiceAccount", [])}
    services = {one["metadata"]["name"]: one for one in by_kind.get("Service", [])}
    for owner, labels, pod in made:
        need(owner, pod["serviceAccountName"] in accounts, "account %s is not made" % pod["serviceAccountName"])
        for volume in pod.get("volumes", []):
            claim = volume.get("persistentVolumeClaim", {}).get("claimName")
            need(owner, claim is None or claim in claims, "claim %s is not made" % claim)
        for container in pod["containers"]:
            variables = {variable["name"] for variable in container.get("env", [])}
            for source in container.get("envFrom", []):
                name = source["configMapRef"]["name"]
                need(owner, name in config_maps, "ConfigMap %s is not made" % name)
                variables |= set(config_maps.get(name, {}).get("data", {}))
            for argument in container["args"]:
                for name in re.findall(r"\$\((\w+)\)", argument):
                    need(owner, name in variables, "%s: there is no %s" % (argument, name))
            address = flags(container).get("--coordinator")
            if address is not None:
                host, port = address.rsplit(":", 1)
                need(owner, host in services and
                     int(port) in [one["port"] for one in services[host]["spec"]["ports"] if one["name"] == "grpc"],
                     "--coordinator %s is not the port grpc of a service" % address)
    for service in by_kind.get("Service", []):
        chosen = [pod for _, labels, pod in made if selects(service["spec"]["selector"], labels)]
        need(service, chosen, "selects no pods")
        for pod in chosen:
            ports = {port["name"] for one in pod["containers"] for port in one["ports"]}
            for port in service["spec"]["ports"]:
                need(service, port["targetPort"] in ports, "its pods have no port %s" % port["targetPort"])
    return found


def reaches(policies, source, target, port):
    """Do the policies let pods with labels `source` open connections to `port` of pods with labels `target`?"""

    def allowed(policy, direction, peer, own, other):
        if not selects(policy["spec"]["podSelector"].get("matchLabels", {}), own):
            return False
        for rule in policy["spec"].get(direction, []):
            if port not in [one.get("port") for one in rule["ports"]]:
                continue
            for one in rule[peer]:
                if "podSelector" in one and selects(one["podSelector"].get("matchLabels", {}), other):
                    return True
        return False

    return (any(allowed(policy, "egress", "to", source, target) for policy in policies) and
            any(allowed(policy, "ingress", "from", target, source) for policy in policies))
