"""What `init` says at its end: how to use the cluster, and what to type on nodes that join."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kubewright.workflows.init import InitOutcome

_COPY = (
    "mkdir -p ~/.kube && sudo cp -i /etc/kubernetes/admin.conf ~/.kube/config && "
    'sudo chown "$(id -u):$(id -g)" ~/.kube/config'
)


def result(outcome: InitOutcome, *, hide_token: bool, hide_key: bool) -> dict[str, Any]:
    """The result as the last line of `-o json`."""
    row: dict[str, Any] = {
        "kind": "result", "endpoint": outcome.endpoint, "phases": outcome.ran, "changes": len(outcome.changes),
    }  # fmt: skip
    if outcome.ca_hash:
        row["caCertHash"] = outcome.ca_hash
    if outcome.tokens and not hide_token:
        row["tokens"] = [token.reveal() for token in outcome.tokens]
    if outcome.certificate_key is not None and not hide_key:
        row["certificateKey"] = outcome.certificate_key.reveal()
    return row


def result_lines(outcome: InitOutcome, host: str, *, hide_token: bool, hide_key: bool) -> list[str]:
    """What a person reads."""
    lines = [
        f"The control plane runs on {host}: {outcome.endpoint}",
        "",
        f"Use it as yourself, on {host}:",
        f"  {_COPY}",
        "",
        "The Node becomes Ready when the cluster has a pod network: install one next.",
    ]
    if not outcome.tokens:
        return [*lines, "", "Nodes join with a token: kubewright token create --print-join-command"]
    for token in outcome.tokens:
        text = "TOKEN" if hide_token else token.reveal()
        command = (
            f"  kubewright join {outcome.endpoint.removeprefix('https://')} --token {text} "
            f"\\\n    --discovery-token-ca-cert-hash {outcome.ca_hash}"
        )
        if outcome.has_endpoint:
            lines += ["", *_control_planes(command, outcome, hide_key=hide_key)]
        lines += ["", "Let workers join, on each of them as root:", command]
    if not outcome.has_endpoint:
        lines += ["", "Further control planes need an address of all of them: --control-plane-endpoint."]
    return lines


def _control_planes(command: str, outcome: InitOutcome, *, hide_key: bool) -> list[str]:
    if outcome.certificate_key is None:
        return [
            "Let further control planes join when they have the files that all of them share (the authorities and",
            "sa.key, sa.pub from the certificates' directory), on each of them as root:",
            f"{command} \\\n    --control-plane",
        ]
    key = "KEY" if hide_key else outcome.certificate_key.reveal()
    return [
        "Let further control planes join within two hours, on each of them as root:",
        f"{command} \\\n    --control-plane --certificate-key {key}",
        "The key opens the cluster's own keys: keep it secret. Upload them anew when the two hours are over:",
        "  kubewright init phase upload-certs --upload-certs",
    ]
