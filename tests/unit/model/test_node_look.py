"""The look at a host: the script in a real shell, and what it prints."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from kubewright.model.node_checks import KERNEL_OPTIONS
from kubewright.model.node_look import LOOK, NodeLook, Unit, parse_look


def test_the_look_at_this_computer(tmp_path: Path) -> None:
    """The script runs in a real shell, and what it prints is understood."""
    odd = tmp_path / "my pki *"
    odd.mkdir()
    paths = f"/etc\n/etc/passwd\n/nowhere\n{odd}"
    words = [paths, "sh no-such-program", "no-such-unit", "/proc/sys/kernel/ostype /nowhere",
             "|".join(KERNEL_OPTIONS), "localhost", "no_such:NO_SUCH"]  # fmt: skip
    done = subprocess.run(["sh", "-c", LOOK, "sh", *words], check=False, capture_output=True, text=True)
    look = parse_look(done.stdout)
    assert look.existing == {"/etc", "/etc/passwd", str(odd)} and look.filled == {"/etc"}
    assert look.programs == {"sh"}
    assert look.contents == {"/proc/sys/kernel/ostype": "Linux", "/nowhere": ""}
    assert set(look.name_addresses) <= {"127.0.0.1", "::1"} and look.name_addresses
    assert "cpu" in look.cgroups or "memory" in look.cgroups
    assert look.modules == {}


def looked(root: Path, modules: str) -> NodeLook:
    """The very script, with this kernel's modules and SELinux' files below a folder."""
    script = LOOK
    for path, instead in (
        ("/lib/modules", "modules"), ("/sys/module", "sys"), ("/proc/config.gz", "none"),
        ("/boot/config-", "config-"), ("/sys/fs/selinux", "fs"), ("/etc/selinux", "etc"),
    ):  # fmt: skip
        assert path in script
        script = script.replace(path, f"{root}/{instead}")
    words = ["sh", "-c", script, "sh", "", "", "", "", "NONE", "localhost", modules]
    return parse_look(subprocess.run(words, capture_output=True, text=True, check=False).stdout)


def test_a_module_may_be_built_in_or_a_file_compressed_or_not(tmp_path: Path) -> None:
    release = subprocess.run(["uname", "-r"], capture_output=True, text=True, check=True).stdout.strip()
    tree = tmp_path / "modules" / release
    folder = tree / "kernel/net/netfilter"
    folder.mkdir(parents=True)
    for name in ("a_one.ko", "a-two.ko.xz", "a_three.ko.zst", "a_four.ko.gz", "a_five.txt", "xa_six.ko"):
        (folder / name).touch()
    (tree / "modules.builtin").write_text("kernel/net/a_seven.ko\nkernel/net/xa_eight.ko\n")
    (tmp_path / f"config-{release}").write_text("CONFIG_A_NINE=y\nCONFIG_A_TEN=m\n")
    (tmp_path / "sys/a_eleven").mkdir(parents=True)
    words = "one two three four five six seven eight nine ten eleven twelve"
    names = words.split()
    found = looked(tmp_path, " ".join(f"a_{name}:A_{name.upper()}" for name in names)).modules
    assert found == {
        "a_one": "module", "a_two": "module", "a_three": "module", "a_four": "module", "a_seven": "builtin",
        "a_nine": "builtin", "a_eleven": "loaded",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("enforce", "config", "found"),
    [
        ("1", "# SELINUX=disabled\nSELINUX=enforcing\nSELINUXTYPE=targeted\n", (True, "enforcing")),
        ("1", None, (True, "")),
        ("0", " SELINUX=Permissive\n", (False, "permissive")),
        (None, "SELINUX=disabled\n", (False, "disabled")),
        (None, None, (False, "")),
    ],
)
def test_selinux_mode_now_and_after_a_restart(
    tmp_path: Path, enforce: str | None, config: str | None, found: tuple[bool, str]
) -> None:
    """The kernel ends its file without a newline."""
    for path, text in (("fs/enforce", enforce), ("etc/config", config)):
        if text is not None:
            (tmp_path / path).parent.mkdir()
            (tmp_path / path).write_text(text)
    look = looked(tmp_path, "")
    assert (look.selinux_enforcing, look.selinux_config) == found


def test_listening_ports_by_ss_and_by_proc() -> None:
    by_ss = parse_look(
        '\n@@ listening\nLISTEN 0 4096 *:6443 *:* users:(("kube-apiserver",pid=7,fd=7))\n'
        "LISTEN 0 8 [::1]:80 [::]:*\n"
    )
    assert by_ss.listening == {6443: "kube-apiserver", 80: ""}
    by_proc = parse_look(
        "\n@@ listening\n  sl  local_address rem_address   st\n   0: 00000000:192B 00000000:0000 0A 00000000:0\n"
        "   1: 0100007F:1F90 0100007F:9999 01 00000000:0\n"
    )
    assert by_proc.listening == {6443: ""}


def test_units_with_and_without_a_state() -> None:
    look = parse_look("\n@@ units\nkubelet enabled active\nfirewalld  inactive\ncrio not-found inactive\n")
    assert look.units == {
        "kubelet": Unit("enabled", "active"), "firewalld": Unit("", "inactive"), "crio": Unit("", "inactive"),
    }  # fmt: skip
