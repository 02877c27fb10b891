"""Which lines of a log are the stacks of a Go program's goroutines, below which the reason of its end is lost."""

from __future__ import annotations

STACKS = (
    r"(^|\]: | (stdout|stderr) [FP] )"
    r"(goroutine [0-9]+ (gp=\S+ )?(m=\S+ )?(mp=\S+ )?\[.*\]:|created by \S+.*|[^ ]+\(.*\)|"
    r"[[:space:]].*[.]go:[0-9]+( [+]0x[0-9a-f]+)?)?$"
)
"""For `grep -vE`: the lines of a goroutine's stack and empty ones, bare, or behind the journal's `kubelet[1]: `
or what CRI puts before a container's.
klog's fatal messages are followed by those of all goroutines, some 800 lines (klog v2 before 2.100)."""
TAIL = 3000
"""How many of the last lines are looked through for those that tell something: three such ends."""
