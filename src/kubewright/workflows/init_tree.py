"""The phases of `init`: kubeadm's names, nesting and options. What they do is in `workflows.init`."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, TypeAlias

from kubewright.workflows.tree import Step, leaf

if TYPE_CHECKING:
    from kubewright.workflows.init import Init

InitStep: TypeAlias = "Step[Init]"

_VERSIONED = ("cert-dir", "kubernetes-version")
_ADDRESS = ("apiserver-advertise-address", "apiserver-bind-port", "control-plane-endpoint")
_API_NAMES = (
    "apiserver-advertise-address", "apiserver-cert-extra-sans", "control-plane-endpoint", "service-cidr",
    "service-dns-domain", "node-name",
)  # fmt: skip
_KUBECONFIG = (*_VERSIONED, *_ADDRESS, "kubeconfig-dir")
_PATCHED = ("cert-dir", "image-repository", "patches", "experimental-patches")
_MANIFEST = (*_PATCHED, "kubernetes-version")
_API_SERVER = (*_ADDRESS, "apiserver-extra-args", "feature-gates", "service-cidr")
_CONTROLLER = ("controller-manager-extra-args", "pod-network-cidr")
_SCHEDULER = ("scheduler-extra-args",)
_ADDON = ("kubeconfig", "kubernetes-version", "image-repository")
_DNS = ("feature-gates", "service-dns-domain", "service-cidr")
_PROXY = (*_ADDRESS, "pod-network-cidr")


def _certificate(name: str, title: str, *flags: str) -> InitStep:
    def run(init: Init) -> Awaitable[None]:
        return init.certificate(name)

    return Step(
        name, f"Make the certificate {title}", run, flags=(*_VERSIONED, "csr-only", "csr-dir", *flags)
    )


def _authority(name: str, title: str) -> InitStep:
    def run(init: Init) -> Awaitable[None]:
        return init.authority(name)

    return Step(name, f"Make the authority {title}", run, flags=_VERSIONED)


def _kubeconfig(name: str, title: str, *flags: str) -> InitStep:
    def run(init: Init) -> Awaitable[None]:
        return init.kubeconfig(name)

    return Step(name, f"Write the kubeconfig of {title}", run, flags=(*_KUBECONFIG, *flags))


def _static_pod(name: str, pod: str, *flags: str) -> InitStep:
    def run(init: Init) -> Awaitable[None]:
        return init.static_pod(pod)

    return Step(name, f"Write the static Pod {pod}", run, flags=(*_MANIFEST, *flags))


INIT: tuple[InitStep, ...] = (
    leaf(
        "preflight", "Check that the host is fit, and pull the images", lambda init: init.preflight(),
        "ignore-preflight-errors", "node-name", "cri-socket", "kubernetes-version", "image-repository",
    ),
    Step(
        "certs",
        "Make certificates and keys",
        steps=(
            _authority("ca", "of the cluster, which signs its nodes, servers and users"),
            _certificate("apiserver", "by which the API server serves", *_API_NAMES),
            _certificate("apiserver-kubelet-client", "by which the API server connects to kubelets"),
            _authority("front-proxy-ca", "of the front proxy"),
            _certificate("front-proxy-client", "of the front proxy"),
            _authority("etcd-ca", "of etcd"),
            _certificate("etcd-server", "by which etcd serves", "node-name"),
            _certificate("etcd-peer", "by which etcd's members know each other", "node-name"),
            _certificate("etcd-healthcheck-client", "by which etcd's health is asked for"),
            _certificate("apiserver-etcd-client", "by which the API server connects to etcd"),
            leaf("sa", "Make the pair of keys that signs service accounts' tokens",
                 lambda init: init.service_account(), "cert-dir"),
        ),
        flags=(*_VERSIONED, *_API_NAMES),
    ),
    Step(
        "kubeconfig",
        "Write the control plane's and the administrator's kubeconfigs",
        steps=(
            _kubeconfig("admin", "the administrator"),
            _kubeconfig("kubelet", "the kubelet", "node-name"),
            _kubeconfig("controller-manager", "the controller manager"),
            _kubeconfig("scheduler", "the scheduler"),
        ),
        flags=(*_KUBECONFIG, "node-name"),
    ),
    leaf("kubelet-start", "Write the kubelet's configuration and start it", lambda init: init.kubelet_start(),
         "cri-socket", "node-name"),
    Step(
        "control-plane",
        "Write the control plane's static Pods",
        steps=(
            _static_pod("apiserver", "kube-apiserver", *_API_SERVER),
            _static_pod("controller-manager", "kube-controller-manager", *_CONTROLLER),
            _static_pod("scheduler", "kube-scheduler", *_SCHEDULER),
        ),
        flags=(*_MANIFEST, *_API_SERVER, *_CONTROLLER, *_SCHEDULER),
    ),
    Step(
        "etcd",
        "Write etcd's static Pod",
        steps=(
            leaf("local", "Write the static Pod of the one local etcd", lambda init: init.etcd_local(),
                 *_PATCHED, "node-name"),
        ),
        all_at_once=False,
    ),
    leaf("wait-control-plane", "Wait until the API server answers", lambda init: init.wait_control_plane(),
         hidden=True),
    Step(
        "upload-config",
        "Keep the configuration in the cluster, for nodes that join and for upgrades",
        steps=(
            leaf("kubeadm", "Keep the ClusterConfiguration in a ConfigMap", lambda init: init.upload_kubeadm(),
                 "kubeconfig"),
            leaf("kubelet", "Keep the kubelets' configuration in a ConfigMap",
                 lambda init: init.upload_kubelet(), "kubeconfig"),
        ),
        flags=("kubeconfig",),
        aliases=("uploadconfig",),
    ),
    leaf(
        "upload-certs", "Keep the shared certificates in the cluster, encrypted, for two hours",
        lambda init: init.upload_certs(),
        "kubeconfig", "upload-certs", "certificate-key", "skip-certificate-key-print",
    ),
    leaf("mark-control-plane", "Label and taint the Node as a control plane",
         lambda init: init.mark_control_plane(), "node-name"),
    Step("bootstrap-token", "Make bootstrap tokens, and let nodes join with them",
         lambda init: init.bootstrap_token(), flags=("kubeconfig", "skip-token-print"),
         aliases=("bootstraptoken",)),
    Step(
        "kubelet-finalize",
        "Let the kubelet use the certificate that it renews itself",
        steps=(
            leaf("experimental-cert-rotation", "Point kubelet.conf at the certificate that the kubelet renews",
                 lambda init: init.kubelet_finalize(), "cert-dir"),
        ),
        flags=("cert-dir",),
    ),
    Step(
        "addon",
        "Deploy what every cluster needs",
        steps=(
            leaf("coredns", "Deploy cluster DNS", lambda init: init.coredns(), *_ADDON, *_DNS),
            leaf("kube-proxy", "Deploy kube-proxy", lambda init: init.kube_proxy(), *_ADDON, *_PROXY),
        ),
        flags=(*_ADDON, *_DNS, *_PROXY),
    ),
)  # fmt: skip
"""In the order in which they run."""
