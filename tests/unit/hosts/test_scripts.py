"""The answers of the file scripts, read without a host."""

from __future__ import annotations

import pytest

from kubewright.hosts import scripts
from kubewright.hosts.host import FileWrite
from kubewright.secret import Secret

TOKEN = "0123456789abcdef0123456789abcdef"


def test_read_tells_contents_absence_and_failure_apart() -> None:
    output = f"\x00bytes\n{TOKEN}0\n{TOKEN}-\n{TOKEN}0\n{TOKEN}1\n".encode()
    found, failed = scripts.parse_read(TOKEN, ["/a", "/none", "/empty", "/broken"], output)
    assert found == {"/a": b"\x00bytes\n", "/empty": b""}
    assert failed == ["/broken"]


def test_read_that_breaks_off_is_noticed() -> None:
    with pytest.raises(ValueError, match="/b"):
        scripts.parse_read(TOKEN, ["/a", "/b"], f"x{TOKEN}0\nhalf".encode())


def test_stat_takes_any_path() -> None:
    odd = '/etc/a "b"\nc'
    output = (
        f"81a4 root root 5 {odd}{TOKEN}\n41ed root adm 4096 /etc{TOKEN}\na1ff root root 3 /l{TOKEN}\n{TOKEN}\n"
        f"0 {'ab' * 32}  -\n2 \n"
    ).encode()
    found = scripts.parse_stat(TOKEN, [odd, "/gone", "/vanished", "/etc", "/l"], output)
    assert (found[odd].kind, found[odd].mode, found[odd].size) == ("file", 0o644, 5)
    assert found[odd].sha256 == "ab" * 32
    assert (found["/etc"].kind, found["/etc"].group, found["/etc"].sha256) == ("directory", "adm", "")
    assert found["/l"].kind == "symlink"
    assert "/gone" not in found


def test_stat_that_breaks_off_is_noticed() -> None:
    with pytest.raises(ValueError, match="complete"):
        scripts.parse_stat(TOKEN, ["/a"], b"81a4 root root 5 /a")


def test_contents_are_in_the_input_and_never_in_the_arguments() -> None:
    files = [FileWrite("/a", Secret(b"hunter2"), 0o600), FileWrite("/b", b"")]
    assert scripts.write_arguments(TOKEN, files) == [
        TOKEN, "/a", "0600", "root:root", "7", "/b", "0644", "root:root", "0",
    ]  # fmt: skip
    assert b"".join(scripts.write_input(TOKEN, files)) == b"hunter2" + TOKEN.encode() + b"\n"


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("3\n/dev/sda1 100 90 10 90% /var\n", (3, 10240)),
        ("0\n/dev/mapper/a b 100 90 0 100% /mnt/with space\n", (0, 0)),
        ("1\n", (1, None)),
        ("", (0, None)),
    ],
)
def test_failure_names_the_file_and_the_room(output: str, expected: tuple[int, int | None]) -> None:
    assert scripts.parse_failure(output.encode()) == expected


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("dd: error writing 'standard output': No space left on device", True),
        ("ctr: write /var/lib/containerd/x: no space left on device", True),
        ("cat: write error: Disk quota exceeded", True),
        ("permission denied", False),
    ],
)
def test_a_full_disk_is_known_by_its_message(text: str, full: bool) -> None:
    assert scripts.disk_full(text) is full


def test_long_lists_are_split_to_fit_a_command_line() -> None:
    paths = [f"/etc/kubernetes/{'x' * 200}{number}" for number in range(1000)]
    parts = list(scripts.batches(paths))
    assert [path for part in parts for path in part] == paths
    assert all(sum(map(len, part)) < scripts.MAX_COMMAND for part in parts)
    assert list(scripts.batches([])) == []
