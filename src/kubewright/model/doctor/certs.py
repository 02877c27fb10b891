"""Diagnoses of a control plane's certificates, 30 days ahead (P22)."""

from __future__ import annotations

from collections.abc import Iterator

from kubewright.model.doctor.facts import DoctorFacts
from kubewright.model.doctor.finding import Finding, Severity
from kubewright.model.status_certs import EndingCert

_ROTATED = "kubelet-client"
_SERVED = "apiserver, as it serves it"
_AUTHORITIES = ("ca", "etcd-ca", "front-proxy-ca")


def ending(facts: DoctorFacts) -> Iterator[Finding]:
    """Certificates that have ended or end within 30 days; the kubelet's own, which it renews itself, apart."""
    status = facts.status.certs
    rows = [one for one in (status.ending if status else ()) if one.name != _ROTATED]
    for host in dict.fromkeys(host for one in rows for host in one.hosts):
        mine = [one for one in rows if host in one.hosts]
        ended, soon = [one for one in mine if one.ended], [one for one in mine if not one.ended]
        if ended:
            yield Finding(
                "certificates-ended",
                Severity.ERROR,
                "certificates have expired",
                hosts=(host,),
                pitfall="P22",
                evidence=tuple(map(_line, ended)),
                breaks="x509: certificate has expired or is not yet valid, for whoever meets them",
                mend=_mend(ended),
            )
        if soon:
            yield Finding(
                "certificates-ending",
                Severity.WARNING,
                "certificates end within 30 days",
                hosts=(host,),
                pitfall="P22",
                evidence=tuple(map(_line, soon)),
                breaks="nothing yet",
                mend=_mend(soon),
            )


def _line(one: EndingCert) -> str:
    return f"{one.name}: {one.text}, {one.ends:%Y-%m-%d %H:%M} UTC"


def _mend(rows: list[EndingCert]) -> tuple[str, ...]:
    names = {one.name for one in rows}
    if names <= {_SERVED}:
        return ("the file has been renewed, and the API server serves the old one: restart its container",)
    steps = ["kubewright certs renew all, on that host"]
    if names & {*_AUTHORITIES}:
        steps.append("an authority cannot be renewed in place: make a new one, and all that it has signed")
    return tuple(steps)


DIAGNOSES = (ending,)
