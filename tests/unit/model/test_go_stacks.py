"""A fatal message is found above the stacks of all goroutines, by the host's own grep."""

from __future__ import annotations

import subprocess

import pytest

from kubewright.model.go_stacks import STACKS

REASON = "F1122 07:40:36.117916   11613 server.go:162] listen tcp 0.0.0.0:10250: bind: address already in use"
DUMP = f"""\
I1122 07:40:36.100000   11613 server.go:148] Starting to listen on 0.0.0.0:10250
{REASON}
goroutine 161 [running]:
k8s.io/kubernetes/vendor/k8s.io/klog/v2.stacks(0x1)
\t/go/src/k8s.io/kubernetes/vendor/k8s.io/klog/v2/klog.go:1026 +0x89
k8s.io/kubernetes/vendor/k8s.io/klog/v2.(*loggingT).output(0x39c25a0, 0x3, {{0x0, 0x0}}, 0xc000668e70)
\t/go/src/k8s.io/kubernetes/vendor/k8s.io/klog/v2/klog.go:975 +0x568
k8s.io/kubernetes/vendor/k8s.io/klog/v2.Fatal(...)
\t/go/src/k8s.io/kubernetes/vendor/k8s.io/klog/v2/klog.go:1482
created by k8s.io/kubernetes/pkg/kubelet.(*Kubelet).Run in goroutine 1

goroutine 1 [select (no cases), 2 minutes]:
main.main()
\t/go/src/k8s.io/kubernetes/cmd/kubelet/kubelet.go:46 +0x1e
panic: runtime error: index out of range [3] with length 0
Error: failed to run Kubelet: running with swap on is not supported
kubelet.service: Main process exited, code=exited, status=255/EXCEPTION
"""
KEPT = [
    "I1122 07:40:36.100000   11613 server.go:148] Starting to listen on 0.0.0.0:10250",
    REASON,
    "panic: runtime error: index out of range [3] with length 0",
    "Error: failed to run Kubelet: running with swap on is not supported",
    "kubelet.service: Main process exited, code=exited, status=255/EXCEPTION",
]


@pytest.mark.parametrize(
    "head", ["", "1795333236.117916 kubelet[11613]: ", "2026-11-22T07:40:36.1Z stderr F "]
)
def test_stacks_are_left_out_and_reasons_are_not(head: str) -> None:
    text = "".join(f"{head}{line}\n" for line in DUMP.splitlines())
    done = subprocess.run(
        ["grep", "-vE", "-e", STACKS], input=text, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [f"{head}{line}" for line in KEPT]
