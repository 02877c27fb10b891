"""The `-o` option, and documents printed as JSON or YAML."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def output_option(*formats: str, also: Sequence[str] = ()) -> Callable[[F], F]:
    """Add `-o/--output` with these formats, the first of them the default, as the parameter `output`.

    `also` are further names of it, which older scripts use.
    """

    def remember(ctx: click.Context, _param: click.Parameter, value: str) -> str:
        ctx.meta["kubewright.output"] = value  # an error's form follows it: see cli.report
        return value

    return click.option(
        "-o",
        "--output",
        *also,
        "output",
        type=click.Choice(formats),
        default=formats[0],
        show_default=True,
        is_eager=True,
        callback=remember,
        help="Form of the result.",
    )


def print_document(document: Any, output: str) -> None:
    """Print a document of plain data to standard output; `output` is `json` or `yaml`."""
    if output == "yaml":
        import yaml

        click.echo(yaml.safe_dump(document, sort_keys=False, allow_unicode=True), nl=False)
    else:
        import json

        click.echo(json.dumps(document, indent=2, ensure_ascii=False))
