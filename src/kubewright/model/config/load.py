"""Reading a `cluster.yaml`: text in; a checked `ClusterSpec`, or one error that names every mistake, out."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import ValidationError

from kubewright.errors import ConfigError
from kubewright.model.config import checks
from kubewright.model.config.cluster import ClusterSpec, SshSpec
from kubewright.model.config.components import kube_proxy_findings, kubelet_findings
from kubewright.model.config.findings import Finding, FindingsError, of_validation, raise_if_any
from kubewright.model.config.kubeadm import default_cluster_configuration, spec_facts, with_passed_through
from kubewright.model.config.yamltext import MOST_BYTES, Document, decode, read_documents

_ETCD_FILES = {"ca_file": "caFile", "cert_file": "certFile", "key_file": "keyFile"}
_EXAMPLE = "`kubewright config example` prints one to begin with"


def load_cluster(path: Path) -> ClusterSpec:
    """Read a cluster.yaml. Paths inside come back absolute, relative ones taken from the file's directory.

    Raises `ConfigError` with every mistake, a missing SSH key file among them.
    """
    source = str(path)
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except FileNotFoundError as error:
        raise ConfigError(f"{source}: there is no such file", hint=_EXAMPLE) from error
    except OSError as error:
        raise ConfigError(f"{source}: {(error.strerror or type(error).__name__).lower()}") from error
    text = decode(data, source)
    spec, document = _parse(text, source)
    spec = _with_absolute_paths(spec, path.absolute().parent)
    raise_if_any(_missing_keys(spec), source, document)
    return spec


def parse_cluster(text: str, source: str = "cluster.yaml") -> ClusterSpec:
    """A cluster out of the text of its file; no other file is looked at.

    Where only `clusterConfiguration` says a network, name, version or endpoint, the spec's own field has it, too.
    Raises `ConfigError` with the file, path and line of every mistake; the exit code says of which kind the
    first one is, unknown fields before others.
    """
    return _parse(text, source)[0]


def _parse(text: str, source: str) -> tuple[ClusterSpec, Document]:
    document = _one_document(text, source)
    try:
        spec = ClusterSpec.model_validate(document.value)
    except ValidationError as error:
        raise FindingsError(of_validation(error, ClusterSpec), source, document) from error
    found: list[Finding] = []
    try:
        facts = spec_facts(spec)
        found += kubelet_findings(spec.kubelet_configuration, facts)
        found += kube_proxy_findings(spec.kube_proxy_configuration, facts)
        cc = default_cluster_configuration(spec)
        found += checks.findings(spec, cc)
    except FindingsError as error:
        found += error.findings
    raise_if_any(found, source, document)
    return with_passed_through(spec, cc), document


def _one_document(text: str, source: str) -> Document:
    documents = read_documents(text, source)
    if not documents:
        raise ConfigError(f"{source}: the file is empty", hint=_EXAMPLE)
    if len(documents) > 1:
        raise ConfigError(
            f"{source}: {len(documents)} documents, where one cluster is expected (the second begins at line "
            f"{documents[1].line(())})",
            hint="kubeadm's own kinds go into the fields clusterConfiguration, kubeletConfiguration and "
            "kubeProxyConfiguration",
        )
    document = documents[0]
    if not isinstance(document.value, dict):
        raise ConfigError(
            f"{source}: line {document.line(()) or 1}: a mapping of fields is expected", hint=_EXAMPLE
        )
    return document


def _with_absolute_paths(spec: ClusterSpec, directory: Path) -> ClusterSpec:
    def absolute(text: str) -> str:
        return os.path.normpath(directory / Path(text).expanduser())

    def resolved(ssh: SshSpec) -> SshSpec:
        update: dict[str, object] = {}
        if ssh.key_files is not None:
            update["key_files"] = [absolute(text) for text in ssh.key_files]
        if ssh.known_hosts is not None:
            update["known_hosts"] = absolute(ssh.known_hosts)
        return ssh.model_copy(update=update)

    hosts = [host.model_copy(update={"ssh": resolved(host.ssh)}) for host in spec.hosts]
    etcd = spec.etcd
    if etcd is not None:
        etcd = etcd.model_copy(update={field: absolute(getattr(etcd, field)) for field in _ETCD_FILES})
    return spec.model_copy(update={"ssh": resolved(spec.ssh), "hosts": hosts, "etcd": etcd})


def _missing_keys(spec: ClusterSpec) -> list[Finding]:
    places = [(("ssh",), spec.ssh), *((("hosts", i, "ssh"), host.ssh) for i, host in enumerate(spec.hosts))]
    files: list[tuple[tuple[str | int, ...], str, str]] = [
        ((*path, "keyFiles", index), "key file", file)
        for path, ssh in places
        for index, file in enumerate(ssh.key_files or [])
    ]
    if spec.etcd is not None:
        files += [
            (("etcd", alias), "file", getattr(spec.etcd, field)) for field, alias in _ETCD_FILES.items()
        ]
    return [
        Finding(
            path,
            f"there is no {kind} {file}",
            hint="a path is relative to the directory of the file that names it; `~` is your home directory",
        )
        for path, kind, file in files
        if not Path(file).is_file()
    ]
