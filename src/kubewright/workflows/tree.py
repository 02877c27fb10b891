"""The phases of a node command as a tree, with kubeadm's names: running all of it, a part, or all but parts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from kubewright.errors import ExitCode, KubewrightError

if TYPE_CHECKING:
    from kubewright.events import Events
    from kubewright.phases.phase import Change, Phase

R = TypeVar("R")
"""What the steps of one command share while they run."""


@dataclass(frozen=True, slots=True)
class Step(Generic[R]):
    """One phase as users see it: `phase NAME` runs it alone, `--skip-phases NAME` leaves it out.

    A tree stands in a module that imports nothing heavy, because help and completion read it; what `run` calls is
    in the workflow's own module.
    """

    name: str
    """Its own name, such as `apiserver-etcd-client`; its path is `certs/apiserver-etcd-client`."""
    title: str
    """One line for help: what it does, in the imperative."""
    run: Callable[[R], Awaitable[None]] | None = None
    """What it does itself, before its `steps`."""
    steps: tuple[Step[R], ...] = ()
    flags: tuple[str, ...] = ()
    """The options of the command, without their dashes, that `phase NAME` takes, too; a step with `steps` hands
    its own to `phase NAME all`."""
    hidden: bool = False
    """Whether help leaves it out."""
    all_at_once: bool = True
    """Whether `phase NAME all` runs all of its `steps`."""
    aliases: tuple[str, ...] = ()
    """Other names that `phase` takes for it, and help does not show."""


def leaf(
    name: str, title: str, run: Callable[[R], Awaitable[None]], *flags: str, hidden: bool = False
) -> Step[R]:
    """A step without steps below it."""
    return Step(name, title, run, flags=flags, hidden=hidden)


def paths(steps: Sequence[Step[R]], above: str = "") -> Iterator[tuple[str, Step[R]]]:
    """Every step with its path, in the order in which they run."""
    for step in steps:
        path = f"{above}{step.name}"
        yield path, step
        yield from paths(step.steps, f"{path}/")


def find(steps: Sequence[Step[R]], path: str, *, field: str = "phase") -> Step[R]:
    """The step at a path. Raises `KubewrightError` (USAGE), which names `field` and the likeliest path."""
    known = dict(paths(steps))
    if path in known:
        return known[path]
    from difflib import get_close_matches

    shown = [name for name, step in known.items() if not step.hidden]
    likely = [name for name in shown if name.endswith(f"/{path}")] or get_close_matches(path, shown, 1, 0.6)
    raise KubewrightError(
        f"{field}: there is no phase {path!r}" + (f"; did you mean {likely[0]!r}?" if likely else ""),
        hint=f"the phases: {', '.join(shown)}",
        exit_code=ExitCode.USAGE,
    )


async def run_steps(
    steps: Sequence[Step[R]], run: R, skip: Collection[str] = (), *, only: str = ""
) -> list[str]:
    """Run the tree in its order, without the paths in `skip` and what is below them; the paths that were run.

    With `only`, the step at that path and what is below it. Raises `KubewrightError` (USAGE) for a path that does
    not exist, before anything is run.
    """
    for path in skip:
        find(steps, path, field="--skip-phases")
    if not only:
        return await _run(steps, run, frozenset(skip), "")
    step = find(steps, only)
    return await _run([step], run, frozenset(skip), only.removesuffix(step.name))


async def _run(steps: Sequence[Step[R]], run: R, skip: frozenset[str], above: str) -> list[str]:
    done = []
    for step in steps:
        path = f"{above}{step.name}"
        if path in skip:
            continue
        if step.run is not None:
            await step.run(run)
        done += [path, *await _run(step.steps, run, skip, f"{path}/")]
    return done


class StepRun:
    """What the runs of all node commands have: their events, and phases that are done, or with `dry` only looked
    at. `changes` are those made so far, or those that would be."""

    def __init__(self, events: Events, *, dry: bool) -> None:
        self.events = events
        self.dry = dry
        self.changes: list[Change] = []

    async def do(self, phase: Phase, name: str = "") -> Sequence[Change]:
        """Run a phase under a step's path (its own name without one); its changes."""
        if name:
            phase.name = name  # type: ignore[misc]  # one class serves several steps
        changes = await phase.look() if self.dry else await phase.run(self.events)
        self.changes += changes
        return changes
