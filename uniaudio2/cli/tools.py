"""Looking around: ``bench`` and ``doctor``."""

from pathlib import Path

import click

from uniaudio2.batch import check_output_file
from uniaudio2.cli.options import PLACE_OPTIONS, Number, Options, count, takes
from uniaudio2.cli.output import BatchError, emit, say

Column = list[tuple[str, str]]


@click.command()
@click.option("--preset", default="mid", show_default=True, help="Sizes of the language model; weights are random.")
@click.option(
    "--dtype", "dtypes", default="float32", show_default=True, metavar="TYPES",
    help="float32, bfloat16, int8, int4, with commas.",
)  # fmt: skip
@click.option("--batch", default="1", show_default=True, metavar="SIZES", help="Requests at once, with commas.")
@click.option(
    "--prompt-rows", type=count(20), default=200, show_default=True, metavar="N", help="Rows of every prompt."
)
@click.option(
    "--frames", type=count(6), default=50, show_default=True, metavar="N",
    help="Audio frames, and text tokens, to generate.",
)  # fmt: skip
@click.option("--threads", type=count(), metavar="N", help="Of the CPU.  [default: torch's choice]")
@click.option("--compile/--no-compile", default=True, help="Compile the frame (as by default); takes minutes at first.")
@click.option("--cpu-clock", is_flag=True, help="Count CPU seconds: for a busy machine, with --threads 1.")
@click.option("--profile", "trace", type=Path, metavar="JSON", help="Write a trace of some frames of the last setting.")
@click.option("--plan", is_flag=True, help="Only count what a frame must read, and its time at --bandwidth.")
@click.option(
    "--bandwidth", type=Number(0.1), default=3000.0, show_default=True, metavar="GB/S",
    help="For --plan; an H100 reaches about 3000.",
)  # fmt: skip
@takes(*PLACE_OPTIONS, "seed", "as_json")
def bench(
    preset: str,
    dtypes: str,
    batch: str,
    prompt_rows: int,
    frames: int,
    threads: int | None,
    compile: bool,
    cpu_clock: bool,
    trace: Path | None,
    plan: bool,
    bandwidth: float,
    *,
    options: Options,
) -> None:
    """Measure the engine.

    Speed, memory, kernels, and the share of what the memory's bandwidth allows.
    """
    batches = [int(word) if word.strip().isdigit() else 0 for word in batch.split(",")]
    if trace is not None:
        check_output_file(str(trace))
    import torch

    from uniaudio2 import bench as benchmark

    if threads is not None:
        torch.set_num_threads(threads)
    base = benchmark.BenchConfig(
        preset=preset,
        model=None if options.model is None else Path(options.model),
        device="cpu" if plan else str(options.place),
        prompt_rows=prompt_rows,
        frames=frames,
        compile=compile,
        cpu_clock=cpu_clock,
        seed=options.seed,
    )
    chosen = benchmark.settings(base, [word.strip() for word in dtypes.split(",")], batches)
    columns: list[Column] = []
    for number, setting in enumerate(chosen, start=1):
        if plan:
            counted = benchmark.plan_frame(
                setting.lm_config(), setting.dtype, batch=setting.batch, positions=prompt_rows + frames // 2
            )
            record = {"preset": preset, "dtype": setting.dtype, "batch": setting.batch, **vars(counted)}
            rows = benchmark.plan_rows(counted, 1e9 * bandwidth)
            columns.append([("weights", setting.dtype), ("batch", str(setting.batch)), *rows])
        else:
            say(f"{setting.dtype}, batch {setting.batch} ({number} of {len(chosen)})")
            found = benchmark.bench(setting, trace=trace if number == len(chosen) else None)
            record = found.to_dict()
            columns.append(benchmark.measurement_rows(found))
        if options.as_json:
            emit(record)
    if not options.as_json:
        clock = ", CPU seconds" if cpu_clock else ""
        _print_columns(f"{options.model or preset}, {base.device}, {torch.get_num_threads()} threads{clock}", columns)


def _print_columns(title: str, columns: list[Column]) -> None:
    """Named values side by side, one column per setting; a value that a setting lacks stays empty."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", show_header=False)
    for index in range(len(columns) + 1):
        table.add_column(justify="right" if index else "left")
    names = list(dict.fromkeys(name for column in columns for name, _ in column))
    for name in names:
        table.add_row(name, *(dict(column).get(name, "") for column in columns))
    Console().print(table)


@click.command()
@click.option("--model", "-m", metavar="DIR", help="Model folder to look at.")
@click.option(
    "--preset", "--presets", "presets", default="nano", show_default=True,
    help="Presets whose memory is shown, with commas.",
)  # fmt: skip
@takes("device", "as_json")
def doctor(model: str | None, presets: str, *, options: Options) -> None:
    """Look at this installation.

    What is there and what is missing, devices, the model, and how much memory presets take.
    """
    from uniaudio2.doctor import diagnose, findings_table, memory_table, preset_sizes

    findings = diagnose(model)
    sizes = [size for name in presets.split(",") if name.strip() for size in preset_sizes(name.strip())]
    if options.as_json:
        emit({"findings": [vars(finding) for finding in findings], "presets": [size.to_dict() for size in sizes]})
    else:
        from rich.console import Console

        console = Console()
        console.print(findings_table(findings))
        console.print(memory_table(sizes))
    _ = options.place
    if not all(finding.ok for finding in findings if finding.topic in ("program", "package", "model")):
        raise BatchError
