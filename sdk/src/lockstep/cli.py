"""``lockstep``: the customer's command line."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from datetime import datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from lockstep import cli_money, cli_webhooks
from lockstep.client import Lockstep
from lockstep.errors import LockstepError
from lockstep.jobs import JobFilter
from lockstep.models import BulkResult, Event, Generation, Job
from lockstep.printing import local_time, printed_table
from lockstep.resources import JobsOf

app = typer.Typer(
    help="Teach a Lockstep server things and have it draw them. Reads LOCKSTEP_URL and LOCKSTEP_API_KEY.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
jobs = typer.Typer(help="Look at jobs and cancel them.", no_args_is_help=True)
concepts = typer.Typer(help="What was learned, and files of it.", no_args_is_help=True)
app.add_typer(jobs, name="jobs")
app.add_typer(concepts, name="concepts")
for command in (cli_money.usage, cli_money.limits, cli_money.budget):
    app.command()(command)
app.add_typer(cli_webhooks.app, name="webhooks")

J = TypeVar("J", bound=Job)
Limit = Annotated[int, typer.Option(min=1, help="How many to show at most.")]
Out = Annotated[Path, typer.Option(help="Folder for the pictures.", file_okay=False)]
Format = Annotated[str | None, typer.Option("--format", help="png or webp.")]
Quality = Annotated[int | None, typer.Option(min=1, max=100, help="Of a WebP that may lose detail.")]
Metadata = Annotated[
    bool | None, typer.Option("--metadata/--no-metadata", help="Whether the files say how they were drawn.")
]


def main() -> None:
    """Run the command line; what the user can act on is a message, not a traceback."""
    try:
        app()
    except (LockstepError, OSError) as error:
        typer.echo(f"lockstep: {error}", err=True)
        sys.exit(1)


@app.command()
def train(
    name: Annotated[str, typer.Argument(help="What prompts will call it: `tom` is written `<tom>`.")],
    pictures: Annotated[list[Path], typer.Argument(help="Pictures of the thing.", exists=True, dir_okay=False)],
    superclass: Annotated[str | None, typer.Option(help="The word for what it is; a new name needs one.")] = None,
    base_model: Annotated[str | None, typer.Option(help="The model to learn it on.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Training steps.")] = None,
) -> None:
    """Learn a concept from pictures."""
    with Lockstep() as lockstep:
        files = [lockstep.files.upload(path) for path in pictures]
        job = lockstep.trainings.create(
            concept=name,
            superclass=superclass,
            images=[file.id for file in files],
            base_model=base_model,
            steps=steps,
        )
        done = _watch(lockstep.trainings, job)
        if done.result is not None:
            typer.echo(done.result.concept_id)


@app.command()
def distill(
    name: Annotated[str, typer.Argument(help="How the student will be called.")],
    teacher: Annotated[str | None, typer.Option(help="The base model to distil.")] = None,
    pairs: Annotated[int | None, typer.Option(min=0, help="Pairs of the teacher to learn from; 0 for none.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Updates of the student.")] = None,
) -> None:
    """Distil a student, which draws in one step, from a base model."""
    with Lockstep() as lockstep:
        job = lockstep.distillations.create(name=name, teacher=teacher, pairs=pairs, steps=steps)
        done = _watch(lockstep.distillations, job)
        if done.result is not None:
            typer.echo(done.result.model)


@app.command()
def generate(
    prompt: Annotated[str, typer.Argument(help='What to draw, such as "<tom> on the beach".')],
    *,
    out: Out,
    model: Annotated[str | None, typer.Option(help="The model to draw with.")] = None,
    n: Annotated[int | None, typer.Option("-n", min=1, help="How many pictures.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the first picture.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Sampling steps.")] = None,
    picture_format: Format = None,
    quality: Quality = None,
    metadata: Metadata = None,
) -> None:
    """Draw pictures of a prompt; names in `<...>` are those of concepts."""
    with Lockstep() as lockstep:
        job = lockstep.generations.create(
            prompt=prompt,
            model=model,
            n=n,
            seed=seed,
            steps=steps,
            format=picture_format,
            quality=quality,
            metadata=metadata,
        )
        _save(lockstep, _watch(lockstep.generations, job), out)


@app.command()
def sweep(
    prompt: Annotated[str, typer.Argument(help='What to draw, such as "<tom> on the beach".')],
    *,
    concept: Annotated[str, typer.Option(help="The concept whose dial is turned, as the prompt names it.")],
    out: Out,
    gate_bias: Annotated[str | None, typer.Option(help="Its values, such as 0.4,0.5,0.6,0.7.")] = None,
    gate_temperature: Annotated[str | None, typer.Option(help="Or values of the other dial.")] = None,
    model: Annotated[str | None, typer.Option(help="The model to draw with.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of every picture.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Sampling steps.")] = None,
    picture_format: Format = None,
    quality: Quality = None,
    metadata: Metadata = None,
) -> None:
    """Draw a prompt once at each of several values of a concept's dial."""
    with Lockstep() as lockstep:
        job = lockstep.generations.sweep(
            prompt=prompt,
            concept=concept,
            gate_bias=_values(gate_bias),
            gate_temperature=_values(gate_temperature),
            model=model,
            seed=seed,
            steps=steps,
            format=picture_format,
            quality=quality,
            metadata=metadata,
        )
        _save(lockstep, _watch(lockstep.generations, job), out)


@app.command()
def reproduce(
    what: Annotated[str, typer.Argument(help="A generation's id, or the file id of one picture.")],
    *,
    out: Out,
) -> None:
    """Draw pictures again, from exactly what they were drawn from."""
    with Lockstep() as lockstep:
        by_id = lockstep.generations.reproduce_picture if what.startswith("file_") else lockstep.generations.reproduce
        job = by_id(what)
        _save(lockstep, _watch(lockstep.generations, job), out)


@jobs.command("list")
def list_jobs(
    state: Annotated[str | None, typer.Option(help="Only jobs in this state.")] = None, limit: Limit = 20
) -> None:
    """Show the newest jobs."""
    with Lockstep() as lockstep, printed_table("id", "kind", "state", "created") as table:
        for job in islice(lockstep.jobs.list(state=state, limit=min(limit, 100)), limit):
            table.add_row(job.id, job.kind, job.state, local_time(job.created_at))


@jobs.command()
def watch(job_id: str) -> None:
    """Follow a job until it ends."""
    with Lockstep() as lockstep:
        _watch(lockstep.jobs, lockstep.jobs.get(job_id))


@jobs.command()
def why(job_id: str) -> None:
    """Say why a job waits, and when it may start."""
    with Lockstep() as lockstep:
        told = lockstep.jobs.why(job_id)
    typer.echo(f"{told.reason}: {told.detail}")
    if told.position is not None:
        typer.echo(f"place {told.position} among yours, about {told.jobs_ahead} jobs ahead")
    if told.starts_in is not None:
        typer.echo(f"likely within {told.starts_in.p50:.0f} s, almost surely within {told.starts_in.p90:.0f} s")
    elif told.unblocked_by is not None:
        typer.echo(f"unblocked by: {told.unblocked_by}")


@jobs.command()
def cancel(job_id: str) -> None:
    """Cancel a job."""
    with Lockstep() as lockstep:
        job = lockstep.jobs.cancel(job_id)
        typer.echo(f"{job.id} {job.state if job.is_terminal else 'will stop'}")


Kind = Annotated[str | None, typer.Option(help="Only jobs of this kind.")]
State = Annotated[str | None, typer.Option(help="Only jobs in this state.")]
OfModel = Annotated[str | None, typer.Option(help="Only jobs of this model.")]
Since = Annotated[datetime | None, typer.Option(help="Only jobs accepted then or later.")]
Before = Annotated[datetime | None, typer.Option(help="Only jobs accepted before.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only count them.")]


@jobs.command()
def retry(job_id: str) -> None:
    """Try a job again that failed, was canceled or expired."""
    with Lockstep() as lockstep:
        typer.echo(lockstep.jobs.retry(job_id).id)


@jobs.command()
def cancel_many(
    *,
    kind: Kind = None,
    state: State = None,
    model: OfModel = None,
    since: Since = None,
    before: Before = None,
    dry_run: DryRun = False,
) -> None:
    """Cancel every job of a filter."""
    chosen = _chosen(kind, state, model, since, before)
    with Lockstep() as lockstep:
        _deal(partial(lockstep.jobs.cancel_many, **chosen), "canceled", dry_run=dry_run)


@jobs.command()
def retry_many(
    *,
    kind: Kind = None,
    state: State = None,
    model: OfModel = None,
    since: Since = None,
    before: Before = None,
    dry_run: DryRun = False,
) -> None:
    """Try every job of a filter again that did not succeed and was not tried again yet."""
    chosen = _chosen(kind, state, model, since, before)
    with Lockstep() as lockstep:
        _deal(partial(lockstep.jobs.retry_many, **chosen), "tried again", dry_run=dry_run)


@concepts.command("list")
def list_concepts(limit: Limit = 20) -> None:
    """Show the newest concepts."""
    with Lockstep() as lockstep, printed_table("id", "name", "superclass", "version", "created") as table:
        for concept in islice(lockstep.concepts.list(limit=min(limit, 100)), limit):
            version = "-" if concept.latest_version is None else str(concept.latest_version)
            table.add_row(concept.id, concept.name, concept.superclass, version, local_time(concept.created_at))


@concepts.command()
def download(
    concept_id: str,
    version: Annotated[int | None, typer.Option(min=1, help="By default the latest.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where to write it; NAME-vN.safetensors here.")] = None,
) -> None:
    """Fetch a concept's file."""
    with Lockstep() as lockstep:
        concept = lockstep.concepts.get(concept_id)
        version = version or concept.latest_version
        content = lockstep.concepts.download(concept.id, version=version)
        path = out or Path(f"{concept.name}-v{version}.safetensors")
        path.write_bytes(content)
        typer.echo(path)


@concepts.command("import")
def import_concept(
    name: Annotated[str, typer.Argument(help="The concept that it becomes a version of; a new name makes a new one.")],
    file: Annotated[Path, typer.Argument(help="A concept file, of this or another server.", exists=True)],
    base_model: Annotated[str | None, typer.Option(help="By default the one that the file fits.")] = None,
) -> None:
    """Make a concept, or a version of one, from a concept file."""
    with Lockstep() as lockstep:
        typer.echo(lockstep.concepts.import_file(file, concept=name, base_model=base_model).id)


def _chosen(
    kind: str | None, state: str | None, model: str | None, since: datetime | None, before: datetime | None
) -> JobFilter:
    """The filter; times that were typed without a zone are local ones."""
    return {
        "kind": kind,
        "state": state,
        "model": model,
        "created_after": None if since is None else since.astimezone(),
        "created_before": None if before is None else before.astimezone(),
    }


def _deal(act: Callable[..., BulkResult], done: str, *, dry_run: bool) -> None:
    """Call again while there are more and some of them can be dealt with; say what became of all."""
    count, has_more = 0, True
    while has_more:
        told = act(dry_run=dry_run)
        count += told.count
        has_more = told.has_more and told.count > 0 and not dry_run
        for refusal in told.refused:
            typer.echo(f"{refusal.id}: {refusal.message}", err=True)
    more = " or more" if dry_run and told.has_more else ""
    typer.echo(f"{count}{more} {'would be ' if dry_run else ''}{done}")


def _values(typed: str | None) -> list[float] | None:
    """The numbers between commas."""
    if typed is None:
        return None
    try:
        values = [float(value) for value in typed.split(",")]
    except ValueError:
        values = [math.nan]
    if not all(map(math.isfinite, values)):
        raise typer.BadParameter(f"give numbers such as 0.4,0.5,0.6, not {typed!r}")
    return values


def _save(lockstep: Lockstep, job: Generation, out: Path) -> None:
    """Write the pictures; a name ends in what its picture differs by: the value of a swept dial, or the seed."""
    out.mkdir(parents=True, exist_ok=True)
    for image in job.result.images if job.result is not None else ():
        swept = {"gate_bias": image.gate_bias, "gate_temperature": image.gate_temperature}
        differing = [f"{dial}-{value}" for dial, value in swept.items() if value is not None] or [str(image.seed)]
        path = out / f"{job.id}-{'-'.join(differing)}.{image.media_type.rpartition('/')[2]}"
        path.write_bytes(lockstep.files.content(image.file_id))
        typer.echo(path)
    for picture in job.result.withheld if job.result is not None else ():
        typer.echo(f"withheld: the picture of seed {picture.seed} ({picture.code})", err=True)


def _watch(kind: JobsOf[J], job: J) -> J:
    """Wait for a job behind a progress bar on standard error; results belong to standard output."""
    for warning in job.warnings:
        typer.echo(f"warning: {warning.message}", err=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(f"{job.kind} {job.state}", total=None)

        def show(event: Event) -> None:
            progress = event.data.get("progress") or {}
            bar.update(
                task,
                description=f"{job.kind} {event.data.get('state', job.state)}",
                completed=progress.get("step"),
                total=progress.get("steps"),
            )

        return kind.wait(job.id, on_event=show)


if __name__ == "__main__":
    main()
