"""What must not be shown is not."""

from __future__ import annotations

import pytest

from kubewright.model.upgrade import manifest_diff
from kubewright.phases.files import diff_lines
from kubewright.secret import without_passwords

PROXY = "http://me:hunter2@proxy.example.com:3128"


@pytest.mark.parametrize(
    "text",
    ["https://192.0.2.1:6443", "- --etcd-servers=https://a:2379,https://b:2379", "mail me@example.com: now"],
)
def test_what_holds_no_password_is_shown_whole(text: str) -> None:
    assert without_passwords(text) == text


def test_differences_show_no_password_of_a_proxy() -> None:
    pod = {"spec": {"containers": [{"name": "a", "env": [{"name": "HTTPS_PROXY", "value": PROXY}]}]}}
    shown = [*diff_lines("", b"", PROXY.encode()), *manifest_diff("a.yaml", None, pod)]
    assert "hunter2" not in "".join(shown)
    assert sum("me:<secret>@proxy.example.com:3128" in line for line in shown) == 2
