"""The web view behind mutual TLS, with the certificates of `trainyard certs init`: what a browser with the .p12 file of
docs/operations.md sees, and that whoever has no certificate of the CA sees nothing. A part of check_web.py."""
import os
import ssl
import subprocess
import urllib.request

from devtools import Certificates, Page
from local_cluster import LocalCoordinator, job_spec

PASSWORD = "of the import"


def fetch(url, ca, certificate=None):
    """200, or why nothing came. `certificate`: a folder with tls.crt and tls.key."""
    context = ssl.create_default_context(cafile=ca)
    if certificate:
        context.load_cert_chain(os.path.join(certificate, "tls.crt"), os.path.join(certificate, "tls.key"))
    try:
        return urllib.request.urlopen(url, context=context, timeout=10).status
    except OSError as error:   # a refusal comes at the first read, when the handshake is over for the client
        return str(error)


def make_certificates(binaries, folder):
    subprocess.run([os.path.join(binaries, "client/trainyard"), "certs", "init", "--dir", folder], check=True,
                   stdout=subprocess.DEVNULL)
    return folder


def make_p12(certs, path):
    """The line that docs/operations.md gives, but for the password, which it leaves to the prompt."""
    subprocess.run(["openssl", "pkcs12", "-export", "-name", "trainyard", "-inkey", certs + "/client/tls.key", "-in",
                    certs + "/client/tls.crt", "-certfile", certs + "/ca.crt", "-out", path, "-passout", "pass:" + PASSWORD],
                   check=True)
    return path


def check(binaries, folder, out):
    """What is wrong, as lines of text."""
    found = []

    def need(condition, text):
        if not condition:
            found.append("TLS: " + text)

    os.makedirs(folder)
    certs = make_certificates(binaries, os.path.join(folder, "certs"))
    ca = os.path.join(certs, "ca.crt")
    stranger = make_certificates(binaries, os.path.join(folder, "stranger"))
    p12 = make_p12(certs, os.path.join(folder, "trainyard.p12"))
    with LocalCoordinator(binaries, folder, certificates=certs) as coordinator:
        for who, certificate, answer in (("a certificate of the CA", certs + "/client", "200"),
                                         ("no certificate", None, "certificate required"),
                                         ("a certificate of another CA", stranger + "/client", "alert")):
            seen = str(fetch(coordinator.web + "/", ca, certificate))
            need(answer in seen, "with %s: %s, not %s" % (who, seen, answer))
        check_with_certificate(coordinator, Certificates(ca, p12, PASSWORD, coordinator.web), need, out)
        page = Page(certificates=Certificates(ca, origin=coordinator.web))
        try:
            error = page.go(coordinator.web + "/")
            need(error == "net::ERR_BAD_SSL_CLIENT_AUTH_CERT", "a browser without a certificate: %s" % error)
            need(not page.run("document.querySelector('#main')"), "a browser without a certificate shows the page")
        finally:
            page.close()
    return found


def check_with_certificate(coordinator, certificates, need, out):
    """The page loads, and follows what happens."""
    page = Page(certificates=certificates)
    try:
        error = page.go(coordinator.web + "/")
        if error:
            need(False, "a browser with the .p12: %s" % error)
            return
        page.wait("document.getElementById('link').dataset.state === 'live' && document.querySelector('.empty')")
        loads = page.loads
        coordinator.submit(job_spec("behind-tls", 5, more="suspend: true\n"))
        page.wait("document.querySelector('tbody .job-name').textContent === 'behind-tls'", 10, "a new job's row, live")
        need(page.loads == loads, "the page was loaded again to show a new job")
        page.picture(os.path.join(out, "tls-light.png"), whole=False)
        for error in page.errors:
            need(False, error)
        for address in page.addresses:
            need(address.startswith((coordinator.web + "/", "about:", "data:")), "asked for %s" % address)
    finally:
        page.close()
