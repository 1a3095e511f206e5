"""The ``gradprobe`` command. Torch is imported by the commands that need it, never by ``--help``."""

from __future__ import annotations

import inspect
import shlex
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from gradprobe import cli_audit, cli_compare, cli_doctor, cli_plan, cli_trajectory
from gradprobe.cli_options import (
    PROBLEM_KEYS,
    AllowGlobal,
    BatchSize,
    Checkpoint,
    CheckpointKey,
    DataArg,
    DataName,
    First,
    LossName,
    Mode,
    Model,
    ModelArg,
    Output,
    Precision,
    Split,
    TrustPickle,
    gather,
    merged,
    parse_range,
    parse_seeds,
    parse_value,
    read_config,
    set_threads,
)
from gradprobe.core.errors import UsageError, unknown

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="How good are gradients that were estimated without backpropagation?",
)

app.command("audit")(cli_audit.audit)
app.command("doctor")(cli_doctor.doctor)
app.command("plan")(cli_plan.plan)
app.command("trajectory")(cli_trajectory.trajectory)

USAGE, PARTIAL, INTERRUPTED = 2, 3, 130
DEMO_ESTIMATORS = "lr,alr,es,aes,hybrid,a-hybrid"


def main() -> None:
    """Entry point: a usage error is one sentence and exit code 2."""
    try:
        app()
    except UsageError as error:
        typer.echo(f"gradprobe: {error}", err=True)
        if table := getattr(error, "table", None):
            _show_table(table)
        sys.exit(USAGE)
    except OSError as error:
        typer.echo(
            f"gradprobe: {error.filename or 'a file'}: {error.strerror}; choose another place.", err=True
        )
        sys.exit(USAGE)
    except KeyboardInterrupt:
        typer.echo("gradprobe: stopped; what was finished is kept, and the same command goes on.", err=True)
        sys.exit(INTERRUPTED)


def _show_table(table: list[Any]) -> None:
    """The names of a checkpoint that does not fit, below the sentence."""
    from rich.console import Console

    from gradprobe.problems.weights.table import show

    show(table, Console(stderr=True, width=None if sys.stderr.isatty() else 150))


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the run, its tables and its figure.")] = Path(
        "figures/demo"
    ),
    copies: Annotated[int, typer.Option(help="Monte-Carlo copies.")] = 1000,
    seeds: Annotated[int, typer.Option(help="Independent repetitions.")] = 5,
) -> None:
    """Probe six methods on the shipped ResNet-5 and real digits: a table and a figure in about a minute."""
    configuration = {"checkpoint": "trained", "estimators": DEMO_ESTIMATORS, "copies": copies, "seeds": seeds}
    _probe(configuration | {"out": out / "run"})
    _report(out / "run", out, None, "bp")


@app.command()
def probe(
    out: Annotated[
        Path, typer.Option(help="Run directory; an existing run of the same problem is added to.")
    ],
    model: Model = None,
    model_arg: ModelArg = None,
    checkpoint: Checkpoint = None,
    checkpoint_key: CheckpointKey = None,
    trust_pickle: TrustPickle = None,
    allow_global: AllowGlobal = None,
    data: DataName = None,
    data_arg: DataArg = None,
    batch_size: BatchSize = None,
    split: Split = None,
    first: First = None,
    loss: LossName = None,
    output: Output = None,
    mode: Mode = None,
    precision: Precision = None,
    estimators: Annotated[
        str | None,
        typer.Option(
            help='Comma-separated, with options: "lr,es(sigma=0.1, noise=laplace)"; or a plan: plan.json.'
        ),
    ] = None,
    copies: Annotated[int | None, typer.Option(help="Monte-Carlo copies, a multiple of the block.")] = None,
    seeds: Annotated[str | None, typer.Option(help="How many seeds, or which: 5, or 0,1,2.")] = None,
    sigma: Annotated[str | None, typer.Option(help="Standard deviation of the noise.")] = None,
    block: Annotated[int | None, typer.Option(help="Copies that share one noise key.")] = None,
    layers: Annotated[str | None, typer.Option(help="Names, globs or class names, comma-separated.")] = None,
    reference: Annotated[
        str | None, typer.Option(help="bp, bp,smoothed, or bp,dataset: the gradient over the whole split.")
    ] = None,
    batches: Annotated[
        int | None,
        typer.Option(help="Probe so many batches: this one and those that follow it in the split."),
    ] = None,
    reference_copies: Annotated[
        int | None, typer.Option(help="Copies behind the smoothed reference.")
    ] = None,
    smoothed_by: Annotated[
        str | None, typer.Option(help="pathwise, score, or auto: pathwise where that holds.")
    ] = None,
    root_seed: Annotated[int | None, typer.Option(help="Root of all noise keys.")] = None,
    engine: Annotated[str | None, typer.Option(help="auto, loop, tile or vmap.")] = None,
    keep: Annotated[
        str | None, typer.Option(help="products (of seeds), moments alone, or sums to add copies later.")
    ] = None,
    per_sample: Annotated[
        bool | None, typer.Option("--per-sample", help="Store what each sample contributes, for allocate.")
    ] = None,
    memory: Annotated[
        str | None, typer.Option(help="What may be used, such as 2GiB; half of what is free.")
    ] = None,
    storage: Annotated[
        str | None, typer.Option(help="Keep signs for sign-encoded methods as int8 or bits; float32.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="Where to run: cpu, cuda, cuda:1.")] = None,
    noise_on: Annotated[
        str | None, typer.Option(help="device, or cpu for the same numbers on every machine.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="Threads of torch; one, unless more are much faster.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes that share the work, of one thread each by default.")
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option(help="Address of a Dask scheduler whose workers share the work.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            help="TOML file with these options, or the run.json of a run; the Python that it names is run."
        ),
    ] = None,
) -> None:
    """Probe estimators on a model, a checkpoint and a batch. Options override --config."""
    given = gather(locals())
    configuration = read_config(config) if config else {}
    _probe(merged(configuration, given))
    typer.echo(f"Results are in {out}; read them with: gradprobe report {out}")


@app.command()
def report(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Run directory; several are compared.")
    ],
    copies: Annotated[str | None, typer.Option(help="Range for Acc. and Sta., such as 100:1000.")] = None,
    reference: Annotated[str, typer.Option(help="bp, smoothed or dataset.")] = "bp",
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for tables and figures; RUN/report by default, of several comparison beside the first."
        ),
    ] = None,
    labels: Annotated[
        str | None, typer.Option(help="What several runs are called, comma-separated: 1,3,10.")
    ] = None,
    other_batches: Annotated[
        bool, typer.Option("--other-batches", help="Compare runs on different batches all the same.")
    ] = False,
    theory: Annotated[
        bool, typer.Option("--theory", help="Draw what random directions reach by theory.")
    ] = False,
    html: Annotated[
        bool, typer.Option("--html", help="Write report.html too: one page that needs no network.")
    ] = False,
    cosine: Annotated[
        float | None, typer.Option(help="What the plan on the page is to reach; 0.9 by default.")
    ] = None,
) -> None:
    """Print Acc., Sta., floor, ceiling and half-power copies of a run, or of several; write tables and figures."""
    span, given = parse_range(copies), cast(Any, runs[0])
    if cosine is not None and not html:
        raise UsageError("--cosine is for the plan on the page; add --html, or ask gradprobe plan.")
    aim = {}
    if cosine is not None:
        from gradprobe.stats._numbers import check_cosine

        aim["cosine"] = check_cosine(cosine, "--cosine")
    if len(runs) > 1:
        if theory:
            raise UsageError("--theory is drawn in the figure of one run; name one run, or leave it out.")
        folder = out or runs[0].parent / "comparison"
        given = cli_compare.compare(runs, folder, span, reference, labels, other_batches)
    elif labels is not None or other_batches:
        raise UsageError("--labels and --other-batches are for several runs; name at least two.")
    else:
        folder = out or runs[0] / "report"
        _report(runs[0], folder, span, reference, theory=theory)
    if html:
        from gradprobe.report.page import write_html

        file = write_html(given, folder / "report.html", reference=reference, copies=span, **aim)
        typer.echo(f"wrote {file}")


@app.command("list")
def list_() -> None:
    """List everything registered, from estimators to sections of the report."""
    from rich.console import Console
    from rich.table import Table

    from gradprobe.checkup import CHECKS
    from gradprobe.engine.noise import NOISE
    from gradprobe.estimators import ESTIMATORS
    from gradprobe.estimators.centres import CENTRES
    from gradprobe.layers import RULES
    from gradprobe.plots import PLOTS
    from gradprobe.problems import DATASETS, FUNCTIONS, MODELS, NETWORKS, SOURCES
    from gradprobe.report.sections import SECTIONS
    from gradprobe.stats import STATISTICS

    table = Table("kind", "name", "what it is", box=None)
    for registry in (
        ESTIMATORS,
        NETWORKS,
        MODELS,
        DATASETS,
        SOURCES,
        FUNCTIONS,
        NOISE,
        CENTRES,
        RULES,
        CHECKS,
        STATISTICS,
        PLOTS,
        SECTIONS,
    ):
        for entry in registry:
            table.add_row(registry.kind, entry.name, entry.summary)
        table.add_section()
    Console(emoji=False).print(table)  # :factory: would become a picture


def _probe(configuration: dict[str, Any]) -> None:
    from rich.console import Console

    from gradprobe.core.progress import shown
    from gradprobe.probes.allocator import tune_allocator
    from gradprobe.probes.crew import check_crew
    from gradprobe.probes.run import probe as run_probe
    from gradprobe.problems.load import load_problem
    from gradprobe.store.assemble import attribute
    from gradprobe.store.batches import folder_of

    known = [*PROBLEM_KEYS, *_probe_options(), "sigma", "scheduler"]
    for key in configuration:
        if key not in known:
            raise unknown("configuration key", key, known)
    configuration = dict(configuration)
    for key in ("layers", "reference"):
        if isinstance(configuration.get(key), str):
            configuration[key] = [x.strip() for x in configuration[key].split(",")]
    configuration["seeds"] = parse_seeds(configuration.get("seeds", 5))
    configuration["sigma"] = parse_value(configuration.get("sigma"))
    if configuration["sigma"] is None:
        del configuration["sigma"]
    named = {k: v for k, v in configuration.items() if k in PROBLEM_KEYS}
    tune_allocator()
    problem = load_problem(**named)
    rest = {k: v for k, v in configuration.items() if k not in (*PROBLEM_KEYS, "threads", "scheduler")}
    check_crew(rest.get("workers"), None, None)
    if "workers" in rest and "scheduler" in configuration:
        raise UsageError("give --workers or --scheduler, not both: a scheduler has workers of its own.")
    shared = rest.get("workers", 1) > 1 or "scheduler" in configuration
    first = Path(rest["out"]) if rest.get("batches") is None else folder_of(Path(rest["out"]), 0)
    threads = set_threads(problem, configuration.get("threads"), first, 1 if shared else None)
    if shared:
        rest["threads"] = threads
    with _executor(configuration) as executor, shown(Console(stderr=True)) as progress:
        ds = run_probe(problem, progress=progress, executor=executor, **rest)
    if configuration.get("checkpoint") is None:
        typer.echo(f"No --checkpoint was given: the weights are {problem.facts['weights']}.", err=True)
    for note in [*problem.facts.get("notes", []), *problem.facts.get("checkpoint_notes", [])]:
        typer.echo(note, err=True)
    for warned in attribute(ds, "doctor") or []:
        typer.echo(f"doctor, {warned['check']}: {warned['sentence']}", err=True)
    failed = bool(attribute(ds, "failed"))
    if failed:
        typer.echo("Some units failed; gradprobe report says which and why.", err=True)
    if "stopped" in ds.attrs:
        again = shlex.join(["gradprobe", *sys.argv[1:]])
        typer.echo(f"Stopped; what was finished is kept. Go on with: {again}", err=True)
        raise typer.Exit(INTERRUPTED)
    if failed:
        raise typer.Exit(PARTIAL)


def _executor(configuration: dict[str, Any]) -> AbstractContextManager[Any]:
    """The workers of ``--scheduler``, or nothing."""
    from gradprobe.probes.scheduler import connected

    return connected(configuration["scheduler"]) if "scheduler" in configuration else nullcontext()


def _probe_options() -> list[str]:
    from gradprobe.probes.run import probe as function

    inner = ("problem", "progress", "executor", "dataset", "options")
    return [n for n in inspect.signature(function).parameters if n not in inner]


def _report(run: Path, out: Path, copies: tuple[int, int] | None, reference: str, **options: object) -> None:
    from rich.console import Console

    from gradprobe.plots import PLOTS
    from gradprobe.report.batches import show_batches
    from gradprobe.report.text import show, write
    from gradprobe.store.levels import levels_beside, main_part
    from gradprobe.store.run import open_run

    ds = open_run(run)
    console = Console(width=None if sys.stdout.isatty() else 150)
    files = show_batches(ds, console, out)
    if files:
        PLOTS.get("data_or_copies")(ds, save=out / "data_or_copies")
        files += [out / f"data_or_copies.{end}" for end in ("png", "pdf", "json")]
    ds = ds.isel(batch=0) if "batch" in ds.dims else ds
    show(ds, console, copies, reference)
    files += write(ds, out, copies, reference)
    levels = levels_beside(ds)
    if levels is not None:
        PLOTS.get("similarity")(levels, save=out / "levels")
        files += [out / f"levels.{end}" for end in ("png", "pdf", "json")]
    ds, reference = main_part(ds, reference)
    for entry in (e for e in PLOTS if e.meta.get("report")):
        own = {name: value for name, value in options.items() if name in entry.meta.get("options", ())}
        PLOTS.get(entry.name)(ds, reference=reference, save=out / entry.name, **own)
        files += [out / f"{entry.name}.{end}" for end in ("png", "pdf", "json")]
    for file in files:
        console.print(f"wrote {file}", highlight=False, markup=False, soft_wrap=True)
