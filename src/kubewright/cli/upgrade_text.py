"""What the commands of `upgrade` say: a plan as tables and as a document, and what follows an upgrade."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kubewright.cli.table import table
from kubewright.model.upgrade import Component, ComponentConfig, Upgrade
from kubewright.workflows.upgrade_plan import Plan

if TYPE_CHECKING:
    from kubewright.workflows.upgrade import UpgradeOutcome

_PRESENT = {True: "yes", False: "no", None: ""}


def plan_lines(found: Plan) -> list[str]:
    """The plan for a person."""
    lines = [f"The cluster is at {found.state.version}."]
    if not found.upgrades:
        return [
            *lines,
            "",
            "Nothing newer is known here; name a version to plan for it.",
            "",
            *_configs(found),
        ]
    for upgrade in found.upgrades:
        lines += ["", f"{upgrade.target}: {upgrade.description}", "", *_components(upgrade.components)]
        if upgrade.kubelets:
            lines += ["", "By hand on each node, after the control plane:", ""]
            rows = [[one.name, one.current, one.target] for one in upgrade.kubelets]
            lines += _indented(table(("COMPONENT", "NOW", "THEN"), rows))
        lines += ["", *_next(upgrade)]
    return [*lines, "", *_configs(found)]


def applied_lines(done: UpgradeOutcome, *, others: bool) -> list[str]:
    """What a person reads after `upgrade apply`; `others` says whether the cluster has more nodes."""
    lines = [f"The cluster is at {done.version}."]
    if done.backup:
        lines.append(f"The manifests that were replaced are in {done.backup}.")
    kubelets = "the kubelets one by one" if others else "the kubelet"
    before = "Run `kubewright upgrade node` on every other node, then upgrade" if others else "Upgrade"
    return [*lines, f"{before} {kubelets}."]


def _components(components: Sequence[Component]) -> list[str]:
    rows = [[one.name, one.current, one.target, one.image, _PRESENT[one.present]] for one in components]
    return _indented(table(("COMPONENT", "NOW", "THEN", "IMAGE", "ON THIS HOST"), rows))


def _next(upgrade: Upgrade) -> list[str]:
    if not upgrade.obstacles:
        return [f"To go there: kubewright upgrade apply {upgrade.target}"]
    return ["In the way:", *(f"  {line}" for line in upgrade.obstacles)]


def _configs(found: Plan) -> list[str]:
    rows = [[one.group, one.current or "-", one.preferred, _by_hand(one)] for one in found.state.configs]
    return table(("CONFIGURATION", "NOW", "WANTED", "TO BE REWRITTEN BY HAND"), rows)


def _by_hand(config: ComponentConfig) -> str:
    return "yes" if config.manual else "no"


def _indented(lines: Sequence[str]) -> list[str]:
    return [f"  {line}" for line in lines]


def plan_document(found: Plan) -> dict[str, Any]:
    """The plan for a program."""
    state = found.state
    return {
        "clusterVersion": str(state.version),
        "kubelets": dict(state.kubelets),
        "availableUpgrades": [upgrade.as_dict() for upgrade in found.upgrades],
        "configVersions": [
            {
                "group": one.group,
                "currentVersion": one.current,
                "preferredVersion": one.preferred,
                "manualUpgradeRequired": one.manual,
            }
            for one in state.configs
        ],
        "notes": list(found.notes),
    }
