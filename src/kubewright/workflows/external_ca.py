"""Authorities that sign elsewhere: their certificates are on the host, their keys are not.

As with kubeadm, all that such an authority would have signed must be there before anything is done.
"""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from datetime import UTC, datetime

from kubewright.errors import ExitCode, HostError
from kubewright.model import kubeconfig, pki, x509
from kubewright.phases.node import Node
from kubewright.secret import Secret
from kubewright.workflows.init_desired import InitDesired

_MAY_BE = (pki.CA, pki.FRONT_PROXY_CA)


@dataclass(frozen=True, slots=True)
class ExternalAuthorities:
    """The names of the authorities whose keys are elsewhere."""

    names: frozenset[str] = frozenset()

    @property
    def any(self) -> bool:
        """Whether there are any."""
        return bool(self.names)


async def external_authorities(node: Node, want: InitDesired) -> ExternalAuthorities:
    """Those of a host. Raises `HostError` with all that they should have signed and that is missing or unfit."""
    directory = want.settings.cluster.certificates_dir
    paths = [path for ca in _MAY_BE for path in (ca.cert_path(directory), ca.key_path(directory))]
    found = await node.host.stat_files(paths, digest=False)
    names = frozenset(
        ca.name for ca in _MAY_BE if ca.cert_path(directory) in found and ca.key_path(directory) not in found
    )
    if problems := await _problems(node, want, names):
        raise HostError(
            f"{node.name}: {problems[0]}"
            + (f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""),
            host=node.name, exit_code=ExitCode.HOST_NOT_FIT, evidence=problems[1:],
            hint=f"the key of {' and '.join(sorted(names))} is not on this host: have them signed where it is "
            "(kubewright certs generate-csr makes requests), or put the key beside its certificate",
        )  # fmt: skip
    return ExternalAuthorities(names)


async def _problems(node: Node, want: InitDesired, names: frozenset[str]) -> list[str]:
    """What is wrong with the files that these authorities should have signed."""
    if not names:
        return []
    directory, now = want.settings.cluster.certificates_dir, datetime.now(UTC)
    specs = want.certificates
    leaves = [spec for spec in specs.values() if spec.ca in names]
    configs = list(want.kubeconfigs.values()) if pki.CA.name in names else []
    places = {spec.file: posixpath.join(want.settings.kubeconfig_dir, spec.file) for spec in configs}
    paths = [specs[name].cert_path(directory) for name in names]
    paths += [path for spec in leaves for path in (spec.cert_path(directory), spec.key_path(directory))]
    found = await node.host.read_files([*paths, *places.values()])
    problems = []
    for name in sorted(names):
        path = specs[name].cert_path(directory)
        problems += [f"{path}: {why}" for why in x509.matches(found[path], specs[name], now=now)]
    for spec in leaves:
        path, key = spec.cert_path(directory), spec.key_path(directory)
        missing = [file for file in (path, key) if file not in found]
        problems += [f"{file} is missing" for file in missing]
        if not missing:
            ca = found[specs[spec.ca].cert_path(directory)]
            reasons = x509.matches(found[path], spec, now=now, ca=ca, key=Secret(found[key]))
            problems += [f"{path}: {why}" for why in reasons]
    for config in configs:
        path = places[config.file]
        if path not in found:
            problems.append(f"{path} is missing")
        else:
            ca = found[pki.CA.cert_path(directory)]
            problems += [f"{path}: {why}" for why in kubeconfig.reasons(found[path], config, ca, now=now)]
    return problems
