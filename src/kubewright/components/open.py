"""Opens the source that `cluster.yaml` names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kubewright.components.source import Source

if TYPE_CHECKING:
    from kubewright.model.config.cluster import SourceSpec


def open_source(spec: SourceSpec) -> Source:
    """The source of `spec.type`; each is imported only when it is used."""
    if spec.type == "system":
        from kubewright.components.system import SystemSource

        return SystemSource()
    from kubewright.components.debian import DebianSource

    return DebianSource()
