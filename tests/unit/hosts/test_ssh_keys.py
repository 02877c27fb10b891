"""What known_hosts says of a host, and which of our keys are offered."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import asyncssh
import pytest

from kubewright.errors import ExitCode, HostError
from kubewright.hosts.ssh_keys import Target, algorithms, bad_host_key, client_keys, known_keys, login_refused


@pytest.fixture(scope="module")
def key() -> asyncssh.SSHKey:
    return asyncssh.generate_private_key("ssh-ed25519")


@pytest.fixture
def target(tmp_path: Path) -> Target:
    return Target("web1", "web1.example", 2222, "root", (), tmp_path / "known_hosts")


def line(pattern: str, key: asyncssh.SSHKey) -> str:
    return f"{pattern} {key.export_public_key().decode()}"


@pytest.mark.parametrize(
    ("pattern", "port", "found", "of_port"),
    [
        ("[web1.example]:2222", 2222, True, True),
        ("[10.0.0.1]:2222", 2222, True, False),
        ("web1.example", 2222, True, False),
        ("web1.example", 22, True, True),
        ("10.0.0.1", 22, True, True),
        ("*.example,!web1.example", 22, False, False),
        ("[web1.example]:2223", 2222, False, False),
        ("[web1.example]:2222", 22, False, False),
    ],
)
def test_entries_are_found_by_name_address_and_port(
    target: Target, key: asyncssh.SSHKey, pattern: str, port: int, found: bool, of_port: bool
) -> None:
    target = replace(target, port=port)
    target.known_hosts_file.write_text(line(pattern, key))
    known = known_keys(target, "10.0.0.1")
    assert ([each.get_fingerprint() for each in known.keys] == [key.get_fingerprint()]) is found
    assert known.of_port is of_port


def test_the_kinds_of_the_known_keys_are_asked_for_first(target: Target) -> None:
    rsa = asyncssh.generate_private_key("ssh-rsa", key_size=2048)
    target.known_hosts_file.write_text(line("[web1.example]:2222", rsa))
    names = algorithms(known_keys(target, ""))
    assert names[0].startswith("rsa-sha2-")
    assert "ssh-ed25519" in names
    assert "ssh-rsa" not in names  # SHA-1


def test_authorities_and_revoked_keys(target: Target, key: asyncssh.SSHKey) -> None:
    target.known_hosts_file.write_text("@cert-authority " + line("*", key))
    known = known_keys(target, "")
    assert (len(known.keys), len(known.authorities)) == (0, 1)
    assert algorithms(known)[0] == "ssh-ed25519-cert-v01@openssh.com"
    target.known_hosts_file.write_text("@revoked " + line("*", key))
    assert len(known_keys(target, "").revoked) == 1


def test_a_broken_line_is_an_error_of_its_file(target: Target) -> None:
    target.known_hosts_file.write_text("@nonsense a b\n")
    with pytest.raises(HostError, match="known_hosts: Invalid known hosts marker") as caught:
        known_keys(target, "")
    assert caught.value.exit_code == ExitCode.HOST_KEY_MISMATCH


def test_the_mend_fits_port_and_jump(target: Target, key: asyncssh.SSHKey) -> None:
    file = target.known_hosts_file
    known = known_keys(target, "")
    error = bad_host_key(target, key, known, "", ValueError())
    assert key.get_fingerprint() in error.message
    assert error.hint.endswith(f"ssh-keyscan -p 2222 web1.example >>{file}")
    error = bad_host_key(replace(target, port=22), key, known, "", ValueError())
    assert error.hint.endswith(f"ssh-keyscan web1.example >>{file}")
    error = bad_host_key(target, key, known, "ops@gate:22", ValueError())
    assert f"ssh -J ops@gate:22 -o UserKnownHostsFile={file} -p 2222 root@web1.example true" in error.hint


def test_an_encrypted_key_file_is_named_with_its_mend(
    target: Target, key: asyncssh.SSHKey, tmp_path: Path
) -> None:
    (tmp_path / "key").write_bytes(key.export_private_key("pkcs8-pem", passphrase="hunter2"))
    with pytest.raises(HostError, match="protected by a passphrase") as caught:
        client_keys(replace(target, key_files=(tmp_path / "key",)))
    assert caught.value.exit_code == ExitCode.HOST_AUTH_REFUSED
    assert "ssh-add" in caught.value.hint


def test_the_mend_of_a_login_fits_a_file_and_options(target: Target, tmp_path: Path) -> None:
    assert "--ssh-key" in login_refused(target, []).hint
    with pytest.raises(HostError, match="cannot be read") as caught:
        client_keys(replace(target, key_files=(tmp_path / "none",)))
    assert caught.value.hint == "name another in `ssh.keyFiles`, or with --ssh-key"


def test_without_key_files_the_usual_ones_and_the_agent_are_tried(
    target: Target, key: asyncssh.SSHKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SSH_AUTH_SOCK", "/nowhere")
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "id_ed25519").write_bytes(key.export_private_key())
    (tmp_path / ".ssh" / "id_rsa").write_bytes(key.export_private_key("pkcs8-pem", passphrase="hunter2"))
    pairs, tried = client_keys(target)
    assert len(pairs) == 1
    assert tried == ["the agent's keys", str(tmp_path / ".ssh" / "id_ed25519")]
