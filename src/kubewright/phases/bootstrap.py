"""A kubelet's TLS bootstrap, done before the kubelet starts."""

from __future__ import annotations

import base64
import posixpath
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from functools import partial

from kubewright.clients.kube import KubeClient
from kubewright.clients.paths import Object
from kubewright.errors import ApiError, KubewrightError
from kubewright.hosts import FileWrite, Host
from kubewright.model import kubeconfig, x509
from kubewright.model.pki import CertSpec
from kubewright.phases.files import private_folders
from kubewright.phases.waiting import Diagnose, wait_until
from kubewright.secret import Secret

_KIND = "CertificateSigningRequest"
_SIGNER = "kubernetes.io/kube-apiserver-client-kubelet"
_USAGES = ("digital signature", "key encipherment", "client auth")
_FORBIDDEN, _CONFLICT, _INVALID = 403, 409, 422


class Issuer:
    """Grants kubelets' requests on an administrator's behalf, by the cluster's own CA.

    kube-controller-manager does the same, 15 s and more after it was started: it waits for Nodes to give networks
    to before it begins with anything. Whoever founds a cluster, and has its CA, need not wait for it.
    """

    def __init__(self, admin: KubeClient, ca: x509.KeyPair) -> None:
        self._admin = admin
        self._ca = ca

    async def grant(self, api_version: str, name: str, spec: CertSpec, key: Secret[bytes]) -> None:
        """Approve the request `name`, which was made of `spec` and `key`, and give it its certificate.

        Raises `WaitTimeoutError` where the API server does not let an administrator do so.
        """
        now = datetime.now(UTC)
        approved = {
            "type": "Approved", "status": "True", "reason": "KubewrightApply",
            "message": "Asked for and granted by kubewright apply", "lastUpdateTime": f"{now:%Y-%m-%dT%H:%M:%SZ}",
        }  # fmt: skip
        cert = base64.b64encode(x509.sign(spec, key, self._ca, now).cert).decode()
        for subresource, status in (
            ("approval", {"conditions": [approved]}),
            ("status", {"certificate": cert}),
        ):
            change = {"status": status}
            patch = partial(self._admin.patch, api_version, _KIND, name, change, subresource=subresource)
            try:
                await _allowed(patch, f"{name} to be granted")
            except ApiError as error:  # what is there stays: the controllers were faster
                if error.status not in (_CONFLICT, _INVALID):
                    raise


async def _allowed(request: Callable[[], Awaitable[Object]], what: str) -> Object:
    """Make a request of an API server that has just started: it learns of roles a moment after it is ready. Even
    what `system:masters` may do otherwise without them, to approve and to sign, is asked of RBAC alone."""
    answer: Object = {}

    async def missing() -> str | None:
        nonlocal answer
        try:
            answer = await request()
        except ApiError as error:
            if error.status != _FORBIDDEN:
                raise
            return error.message
        return None

    await wait_until(missing, what, deadline=30, interval=0.05)
    return answer


async def client_certificate(
    kube: KubeClient,
    node_name: str,
    api_version: str,
    *,
    issuer: Issuer | None = None,
    diagnose: Diagnose | None = None,
) -> x509.KeyPair:
    """Ask for a kubelet's client certificate with a bootstrap token and wait until it is issued: by `issuer`, or
    by kube-controller-manager.

    It is the kubelet's own request (KEP-266, "TLS bootstrap"), made for it: a kubelet that starts without a
    certificate asks for its Node as nobody, in vain, longer apart each time, and keeps those connections for
    10 s more when it has the certificate. Raises `WaitTimeoutError` and `KubewrightError` where it is denied.
    """
    spec = kubeconfig.node_client_cert(node_name)
    key = x509.new_key(spec.key_kind)
    request = base64.b64encode(x509.request(spec, key)).decode()
    asked = {
        "apiVersion": api_version,
        "kind": _KIND,
        "metadata": {"generateName": "csr-"},
        "spec": {"request": request, "signerName": _SIGNER, "usages": list(_USAGES)},
    }
    if issuer is None:
        name = (await kube.create(asked))["metadata"]["name"]
    else:
        made = await _allowed(partial(kube.create, asked), f"{node_name}: the kubelet's request to be taken")
        name = made["metadata"]["name"]
        await issuer.grant(api_version, name, spec, key)
    cert = b""

    async def missing() -> str | None:
        nonlocal cert
        status = (await kube.get(api_version, _KIND, name) or {}).get("status") or {}
        _refuse_denied(node_name, name, status.get("conditions") or [])
        cert = base64.b64decode(status.get("certificate") or "")
        return None if cert else f"{name} is not signed yet"

    await wait_until(
        missing, f"{node_name}: the kubelet's TLS bootstrap", deadline=120, interval=0.05, diagnose=diagnose,
        hint="is kube-controller-manager up? it approves and signs the kubelet's request",
    )  # fmt: skip
    return x509.KeyPair(cert, key)


def _refuse_denied(node_name: str, name: str, conditions: Sequence[Object]) -> None:
    for condition in conditions:
        if condition.get("type") in ("Denied", "Failed"):
            raise KubewrightError(
                f"{node_name}: the kubelet's request {name} was refused: {condition.get('message', '')}",
                hint=f"kubectl describe csr {name}",
            )


async def write_client_certificate(host: Host, pair: x509.KeyPair, kubelet_conf: FileWrite) -> None:
    """Put a kubelet's certificate where the kubelet puts it after a rotation, and then its kubeconfig: whoever
    finds that finds all of it."""
    pem = f"{kubeconfig.KUBELET_PKI_DIR}/kubelet-client-{datetime.now(UTC):%Y-%m-%d-%H-%M-%S}.pem"
    await private_folders(host, posixpath.dirname(kubeconfig.KUBELET_PKI_DIR))
    await host.write_files([FileWrite(pem, kubeconfig.kubelet_client_pem(pair), 0o600)])
    # -f: a host that lost its power between the two has left the new link.
    script = 'ln -sfn "$1" "$2.new" && mv -T "$2.new" "$2"'
    await host.shell(script, pem, kubeconfig.KUBELET_CLIENT_CURRENT)
    await host.write_files([kubelet_conf])
