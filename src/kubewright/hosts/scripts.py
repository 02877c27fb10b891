"""The shell scripts with which files are read, examined and written on a host, and what their output means.

Everything is POSIX sh with coreutils or busybox. Paths are arguments and contents go through standard input, so
nothing needs quoting and no content is ever in a process list. Text is told from content by a token of 128
random bits that the caller draws anew for each call.
"""

from __future__ import annotations

import re
import shlex
import stat
from collections.abc import Iterable, Iterator, Sequence

from kubewright.hosts.host import FileStat, FileWrite

# A whole command line reaches sshd's shell as one argument, which Linux limits to 128 KiB (execve(2)).
MAX_COMMAND = 120 * 1024
_MAX_ARGUMENTS = 60 * 1024

READ = r"""
token=$1; shift
for path; do
  if [ -f "$path" ]; then
    cat -- "$path"
    printf '%s%s\n' "$token" "$?"
  else
    printf '%s-\n' "$token"
  fi
done
"""

# openssl uses the processor's SHA instructions and is five times as fast as coreutils, but starts slower.
_SUM = r"""
sum() {
  if [ "$2" -gt 4194304 ] && command -v openssl >/dev/null; then
    openssl dgst -sha256 -r <"$1" 2>/dev/null || sha256sum <"$1"
  else
    sha256sum <"$1"
  fi
}
"""

STAT = (
    _SUM
    + r"""
token=$1; digest=$2; shift 2
[ $# -gt 0 ] || exit 0
stat -c "%f %U %G %s %n$token" -- "$@" 2>/dev/null
printf '%s\n' "$token"
[ "$digest" = yes ] || exit 0
i=0
for path; do
  if [ -f "$path" ] && [ ! -L "$path" ]; then
    printf '%s ' "$i"
    sum "$path" "$(stat -c %s -- "$path")" || echo
  fi
  i=$((i + 1))
done
"""
)

# Temporary files are known by the token alone, so that the trap finds them whatever was interrupted. Nothing is
# renamed before everything has arrived: the token as the last line of the input proves that it did.
_FAILED = r"""
failed() {
  printf '%s\n' "$1"
  df -Pk -- "$2" 2>/dev/null | tail -n 1
  exit 1
}
"""
WRITE = (
    _FAILED
    + r"""
token=$1; shift
umask 077
LC_ALL=C; export LC_ALL
each() {
  step=$1; shift; i=0
  while [ $# -gt 0 ]; do
    path=$1; mode=$2; owner=$3; size=$4; shift 4
    folder=${path%/*}
    temp=$folder/.kubewright-$token-$i
    "$step" || return 1
    i=$((i + 1))
  done
}
discard() { rm -f -- "$temp"; }
stage() {
  if [ -d "$path" ]; then echo "$path: Is a directory" >&2; return 1; fi
  [ -d "$folder/" ] || (umask 022; mkdir -p -- "$folder") || return 1
  (set -C; true >"$temp") && chown "$owner" "$temp" && chmod "$mode" "$temp" || return 1
  [ "$size" = 0 ] || said=$(dd bs="$size" count=1 iflag=fullblock 2>&1 >"$temp") || {
    printf '%s\n' "$said" >&2
    return 1
  }
}
flush() {
  n=$(($# / 4)); i=0
  while [ "$i" -lt "$n" ]; do
    set -- "$@" "${1%/*}/.kubewright-$token-$i"
    shift 4
    i=$((i + 1))
  done
  sync "$@" 2>/dev/null
}
publish() { mv -f -- "$temp" "$path"; }
trap 'each discard "$@"' EXIT
trap 'exit 143' HUP INT TERM PIPE
each stage "$@" || failed "$i" "$folder/"
IFS= read -r end
if [ "$end" != "$token" ]; then echo 'the input ended early' >&2; failed 0 /; fi
flush "$@"
each publish "$@" || failed "$i" "$folder/"
"""
)

UPLOAD = (
    _FAILED
    + _SUM
    + r"""
token=$1; path=$2; mode=$3; size=$4; sum=$5
umask 077
LC_ALL=C; export LC_ALL
folder=${path%/*}
temp=$folder/.kubewright-$token-0
trap 'rm -f -- "$temp"' EXIT
trap 'exit 143' HUP INT TERM PIPE
stage() {
  if [ -d "$path" ]; then echo "$path: Is a directory" >&2; return 1; fi
  [ -d "$folder/" ] || (umask 022; mkdir -p -- "$folder") || return 1
  (set -C; true >"$temp") && chown 0:0 "$temp" && chmod "$mode" "$temp" && cat >"$temp"
}
stage || failed 0 "$folder/"
if [ "$(wc -c <"$temp")" -ne "$size" ]; then echo 'the input ended early' >&2; failed 0 "$folder/"; fi
if [ -n "$sum" ]; then
  found=$(sum "$temp" "$size")
  if [ "${found%% *}" != "$sum" ]; then
    echo "its SHA-256 there is ${found%% *}, and should be $sum" >&2
    failed 0 "$folder/"
  fi
fi
sync "$temp" 2>/dev/null
mv -f -- "$temp" "$path" || failed 0 "$folder/"
"""
)

# $1 is a process; its group is asked to end, and killed after two seconds.
KILL = r"""
group=$(sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f3)
[ "${group:-0}" -gt 1 ] || exit 0
kill -TERM "-$group" 2>/dev/null
i=0
while [ "$i" -lt 40 ] && [ -d "/proc/$1" ]; do sleep 0.05; i=$((i + 1)); done
kill -KILL "-$group" 2>/dev/null
exit 0
"""

_STATUS = re.compile(rb"(-|\d+)\n")
_FULL = re.compile(r"no space left on device|disk quota exceeded", re.IGNORECASE)


def batches(paths: Iterable[str]) -> Iterator[list[str]]:
    """Split paths so that each part fits on one command line; nearly always there is one part."""
    batch: list[str] = []
    size = 0
    for path in paths:
        length = len(shlex.quote(path).encode()) + 1
        if batch and size + length > _MAX_ARGUMENTS:
            yield batch
            batch, size = [], 0
        batch.append(path)
        size += length
    if batch:
        yield batch


def write_batches(files: Iterable[FileWrite]) -> Iterator[list[FileWrite]]:
    """Split files so that the arguments of each part fit on one command line."""
    batch: list[FileWrite] = []
    size = 0
    for file in files:
        length = sum(len(shlex.quote(word).encode()) + 1 for word in _write_words(file))
        if batch and size + length > _MAX_ARGUMENTS:
            yield batch
            batch, size = [], 0
        batch.append(file)
        size += length
    if batch:
        yield batch


def _write_words(file: FileWrite) -> list[str]:
    return [file.path, f"{file.mode:04o}", f"{file.owner}:{file.group}", str(len(file.data))]


def write_arguments(token: str, files: Sequence[FileWrite]) -> list[str]:
    """The arguments of `WRITE`."""
    return [token, *(word for file in files for word in _write_words(file))]


def write_input(token: str, files: Sequence[FileWrite]) -> Iterator[bytes]:
    """The standard input of `WRITE`: the contents one after another, and the proof that they are complete."""
    for file in files:
        yield file.data
    yield token.encode() + b"\n"


def parse_read(token: str, paths: Sequence[str], output: bytes) -> tuple[dict[str, bytes], list[str]]:
    """The contents that `READ` printed, and the paths that exist but could not be read."""
    found: dict[str, bytes] = {}
    failed: list[str] = []
    position = 0
    mark = token.encode()
    for path in paths:
        end = output.find(mark, position)
        status = _STATUS.match(output, end + len(mark)) if end >= 0 else None
        if status is None:
            raise ValueError(f"the answer ends before {path}")
        if status[1] == b"0":
            found[path] = output[position:end]
        elif status[1] != b"-":
            failed.append(path)
        position = status.end()
    return found, failed


def parse_stat(token: str, paths: Sequence[str], output: bytes) -> dict[str, FileStat]:
    """What `STAT` printed about those of `paths` that exist."""
    if not output:
        return {}
    rows, end, sums = output.decode(errors="surrogateescape").rpartition(f"{token}\n")
    if not end:
        raise ValueError("the answer is not complete")
    digests: dict[str, str] = {}
    for line in sums.splitlines():
        index, _, rest = line.partition(" ")
        if rest.strip():
            digests[paths[int(index)]] = rest.split()[0]
    found = {}
    for row in rows.split(f"{token}\n"):
        if not row:
            continue
        mode, owner, group, size, path = row.split(" ", 4)
        bits = int(mode, 16)
        found[path] = FileStat(
            path, _kind(bits), stat.S_IMODE(bits), owner, group, int(size), digests.get(path, "")
        )
    return found


def _kind(mode: int) -> str:
    if stat.S_ISREG(mode):
        return "file"
    if stat.S_ISDIR(mode):
        return "directory"
    return "symlink" if stat.S_ISLNK(mode) else "other"


def parse_failure(output: bytes) -> tuple[int, int | None]:
    """Which file `WRITE` or `UPLOAD` failed at (its index), and the free bytes there where they are known."""
    lines = output.decode(errors="replace").splitlines()
    index = int(lines[0]) if lines and lines[0].isdigit() else 0
    # POSIX's df -P: device, size, used, available, capacity, mount point; the device may hold spaces.
    row = re.search(r"\s(\d+)\s+(\d+)\s+(-?\d+)\s+\S+\s+/", lines[1]) if len(lines) > 1 else None
    return index, int(row[3]) * 1024 if row else None


def disk_full(text: str) -> bool:
    """Whether an error message says that a disk or a quota is used up (ENOSPC, EDQUOT)."""
    return _FULL.search(text) is not None
