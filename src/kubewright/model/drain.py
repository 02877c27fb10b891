"""Which Pods leave a Node that is drained, which stay, and which would be lost."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from kubewright.model.objects import Object

MIRROR = "kubernetes.io/config.mirror"
"""The annotation of a static Pod's image in the API."""


@dataclass(frozen=True, slots=True)
class Leaving:
    """The Pods of one Node but its own: static Pods and those of DaemonSets stay, for they belong to the Node."""

    pods: tuple[Object, ...]
    """Those that go, ended ones among them."""
    lost: tuple[Object, ...]
    """Those of `pods` that run, and that no controller would make anew elsewhere."""


def leaving(pods: Iterable[Object]) -> Leaving:
    """Sort the Pods of a Node."""
    found = [pod for pod in pods if not _stays(pod)]
    return Leaving(
        tuple(found),
        tuple(pod for pod in found if _controller(pod) == "" and not ended(pod) and not ends(pod)),
    )


def _stays(pod: Object) -> bool:
    if MIRROR in (pod["metadata"].get("annotations") or {}):
        return True
    return _controller(pod) == "DaemonSet" and not ended(pod)


def _controller(pod: Object) -> str:
    """The kind of a Pod's controller; empty where it has none."""
    owners = pod["metadata"].get("ownerReferences") or []
    return next((str(owner.get("kind", "")) for owner in owners if owner.get("controller")), "")


def ended(pod: Object) -> bool:
    """Whether all of a Pod's containers have ended for good."""
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def ends(pod: Object) -> bool:
    """Whether a Pod has been told to end."""
    return bool(pod["metadata"].get("deletionTimestamp"))


def title(pod: Object) -> str:
    """`namespace/name`."""
    return f"{pod['metadata'].get('namespace', '')}/{pod['metadata']['name']}"


def shortened(names: Iterable[str], *, most: int = 5) -> str:
    """The first few of some names, and how many more there are."""
    found = list(names)
    more = f" and {len(found) - most} more" if len(found) > most else ""
    return ", ".join(found[:most]) + more
