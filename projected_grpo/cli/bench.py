"""`projected-grpo bench`: what routing costs on this machine, beside its baselines and beside the machine's limits."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from tyro.conf import arg

from projected_grpo.cli.terminal import show, write
from projected_grpo.errors import UsageError
from projected_grpo.whole_files import whole

Preset = Literal["tiny", "Qwen3-0.6B", "Qwen3-4B", "Qwen3-8B", "Qwen3-32B", "Llama-3-8B"]
Part = Literal[
    "split", "step", "adapter", "sources", "generation", "extraction", "grpo", "memory", "kernels", "graph", "growth"
]  # fmt: skip
DType = Literal["float32", "bfloat16", "float64"]
SUFFIXES = (".json", ".md")


def bench(
    *,
    preset: Preset | None = None,
    model: Annotated[Path | None, arg(metavar="FOLDER")] = None,
    only: Annotated[tuple[Part, ...], arg(metavar="PART...")] = (),
    quick: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    k: Annotated[tuple[int, ...] | None, arg(metavar="K...")] = None,
    tokens: int | None = None,
    batch: int | None = None,
    threads: int = 1,
    device: str = "cpu",
    dtype: DType = "float32",
    json_: Annotated[bool, arg(name="json"), tyro.conf.FlagCreatePairsOff] = False,
    report: Annotated[tuple[Path, ...] | None, arg(metavar="FILE...")] = None,
    compare: Annotated[Path | None, arg(metavar="OLD.json")] = None,
    fail_over: Annotated[float | None, arg(metavar="FACTOR")] = None,
    plot: Annotated[Path | None, arg(metavar="FILE")] = None,
) -> int:
    """Measure what routing costs: each part beside its baseline in the same rounds, and beside memory bandwidth.

    The exit code is 1 if something that was to be measured failed, or with --fail-over has become slower.

    Args:
        preset: whose shapes; Qwen3-4B if left out. No weights are read.
        model: the folder of a model instead, of which only config.json is read.
        only: parts to measure; all but growth if left out.
        quick: a tenth of the time, for a first look; k = 5 alone, 256 tokens.
        k: numbers of axes; 5 12 if left out.
        tokens: of a training batch; 2048 if left out.
        batch: rows of a training batch, and prompts that are sampled for; 8 if left out.
        threads: that torch computes on.
        device: cpu or cuda, where kernels, synchronisations and a captured graph are looked at as well.
        dtype: of the model's weights; vectors are float32, or float64 where those are.
        json_: print JSON, times in seconds.
        report: files to write as well; the name says the format: .json or .md.
        compare: a report that --report has written; says which rows have changed by how much.
        fail_over: with --compare: how many times slower a row may be, beside its baseline, than it was; exit code 1
            if one is slower, or if no row could be compared.
        plot: .svg or .png, cost against modules, r and k; measures growth too.
    """
    from projected_grpo.bench import render
    from projected_grpo.bench.machine import usable
    from projected_grpo.bench.plot import format_of
    from projected_grpo.bench.plot import plot as draw
    from projected_grpo.bench.report import changes, read, slower
    from projected_grpo.bench.run import GROUPS, QUICK, WHEN_ASKED, Options, measure
    from projected_grpo.bench.shapes import of_folder
    from projected_grpo.bench.shapes import preset as shape_of

    if preset is not None and model is not None:
        raise UsageError("--preset and --model both say whose shapes; leave one of them out.")
    _check(k, threads, tokens, batch, report, compare, fail_over)
    if plot is not None:
        format_of(plot)
    for path in (*(report or ()), *(() if plot is None else (plot,))):
        if not path.absolute().parent.is_dir():
            raise UsageError(f"{path.parent}, where {path.name} would go, is no folder; make it first.")
    old = None if compare is None else read(compare)
    import torch

    options = QUICK if quick else Options()
    given = {"axes": k, "tokens": tokens, "batch": batch, "threads": threads}
    options = replace(options, **{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]  # checked above
    if model is not None:
        shape, modules = of_folder(model)
    else:
        shape = shape_of(preset or "Qwen3-4B")
        modules = shape.modules()
    wanted: list[str] = [*only] or [name for name in GROUPS if name not in WHEN_ASKED]
    if plot is not None and "growth" not in wanted:
        wanted.append("growth")
    place = usable(device)
    if old is not None:
        unlike = old.unlike(modules, device=place, dtype=getattr(torch, dtype), threads=options.threads)
        if unlike:
            raise UsageError(f"{compare} was measured with {', '.join(unlike)}; compare what was measured alike.")
    with Console(stderr=True).status("starting") as status:
        found = measure(
            shape, modules, device=place, dtype=getattr(torch, dtype), options=options, only=wanted,
            progress=lambda what: status.update(f"measuring {what}"),
        )  # fmt: skip
    compared = [] if old is None else changes(old, found)
    then, now = (None if each is None else each.machine.loops or "none" for each in (old, found))
    alone = 0 if old is None else sum(row.time is not None for row in found.rows) - len(compared)
    if json_:
        write(found.as_json())
        for change in compared:
            print(f"projected-grpo: {render.changed(change)}", file=sys.stderr)
    else:
        show(render.terminal(found, compared))
    for path in report or ():
        with whole(path) as partial:
            text = found.as_json() if path.suffix == ".json" else render.markdown(found)
            partial.write_text(text + "\n", encoding="utf-8", newline="\n")
    if plot is not None:
        draw(found, plot)
    if old is not None and then != now:
        print(f"projected-grpo: compiled loops: {then} in {compare}, {now} in this run.", file=sys.stderr)
    if alone:
        print(f"projected-grpo: {alone} timed rows of this run are not in {compare}.", file=sys.stderr)
    worse = slower(compared, fail_over) if fail_over is not None else []
    for change in worse:
        print(f"projected-grpo: above {fail_over:g}: {render.changed(change)}", file=sys.stderr)
    failed = any("it failed" in sentence for sentence in found.left_out)
    nothing = fail_over is not None and not any(change.by_ratio for change in compared)
    if nothing:
        print("projected-grpo: no row could be compared beside its baseline, so nothing was held.", file=sys.stderr)
    return 1 if worse or failed or nothing else 0


def _check(
    k: tuple[int, ...] | None,
    threads: int,
    tokens: int | None,
    batch: int | None,
    report: tuple[Path, ...] | None,
    compare: Path | None,
    fail_over: float | None,
) -> None:
    if k is not None and (not k or min(k) < 1):
        raise UsageError("--k is the numbers of axes to measure with; give one or more, each at least 1.")
    for name, value in (("threads", threads), ("tokens", tokens), ("batch", batch)):
        if value is not None and value < 1:
            raise UsageError(f"--{name} is {value}; it must be at least 1.")
    if report == ():
        raise UsageError("--report names no file; give it one or more, such as bench.json.")
    for path in report or ():
        if path.suffix not in SUFFIXES:
            raise UsageError(f"--report {path} says no format; name it {' or '.join(SUFFIXES)}.")
    if fail_over is not None and compare is None:
        raise UsageError("--fail-over needs --compare OLD.json, for slower means slower than something.")
    if fail_over is not None and not fail_over > 0:
        raise UsageError(f"--fail-over is {fail_over}; it must be above 0, such as 1.25.")
