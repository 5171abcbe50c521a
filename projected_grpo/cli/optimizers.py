"""`projected-grpo optimizers [NAME...]`: what an optimizer does to routing, by measurement."""

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
import tyro
from rich.console import Console
from tyro.conf import arg

from projected_grpo.cli.suite import ensure_own_suite
from projected_grpo.cli.terminal import show, width, write
from projected_grpo.errors import UsageError

if TYPE_CHECKING:
    from invariants.optimizers import Candidate

Format = Literal["text", "json", "markdown"]


def optimizers(
    names: Annotated[tuple[str, ...], tyro.conf.Positional, arg(metavar="[NAME...]")] = (),
    /,
    *,
    all_: Annotated[bool, arg(name="all"), tyro.conf.FlagCreatePairsOff] = False,
    kwargs: Annotated[str | None, arg(metavar="JSON")] = None,
    require: Annotated[tuple[str, ...], arg(metavar="NAME...")] = (),
    seed: int = 0,
    details: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    reference: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    device: str = "cpu",
    format_: Annotated[Format, arg(name="format")] = "text",
    json_: Annotated[bool, arg(name="json"), tyro.conf.FlagCreatePairsOff] = False,
    report: Annotated[tuple[Path, ...] | None, arg(metavar="FILE...")] = None,
) -> int:
    """Measure optimizers: what each is by itself, and which guarantees survive routing in the three spaces.

    Args:
        names: AdamW or lion (torch's, or else pytorch_optimizer's), pytorch_optimizer:AdamW, or mypackage.module:Class;
            torch's own if left out.
        all_: everything that torch and pytorch_optimizer have.
        kwargs: arguments of the constructor as a JSON object, such as '{"lr": 0.001}'; for one name.
        require: properties (resumes), guarantees in all spaces (erase_match) or in one (keeps_sum@displacement) that
            each optimizer must have, or the exit code is 1.
        seed: of the drawn gradients.
        details: spell out every optimizer, and not only where they are few.
        reference: compare torch's SGD and AdamW, in every implementation, with the specification too, as --all does.
        device: where those are compared.
        format_: what is printed.
        json_: print JSON; short for --format json.
        report: files to write as well; the name says the format: .json, .md, .txt, .svg or .png (the guarantee map).
    """
    ensure_own_suite()
    from invariants.optimizers import reports, survey
    from invariants.optimizers.against import against_reference
    from projected_grpo.cli.router import Routed

    if json_ and format_ not in ("text", "json"):
        raise UsageError(f"--json and --format {format_} contradict each other; leave one of them out.")
    if report == ():
        raise UsageError("--report names no file; give it one or more, such as optimizers.md.")
    if not 0 <= seed < 2**63:
        raise UsageError(f"--seed must be at least 0 and below 2**63, not {seed}.")
    if device != "cpu" and not (reference or all_):
        raise UsageError("--device is where --reference compares; add that, or leave it out.")
    _check_device(device)
    files = [path.absolute() for path in report or ()]  # wherever an optimizer changes to
    for path in files:
        reports.format_of(path)
    printed: reports.Format = "json" if json_ else format_
    torch.set_num_threads(1)  # the tensors are tiny, and sums keep their order
    chosen, notes = _chosen(names, all_), []
    if kwargs is not None:
        if len(chosen) != 1:
            raise UsageError(f"--kwargs is for one optimizer, and {len(chosen)} are to be measured; name one.")
        chosen = [chosen[0].having(**_object(kwargs))]
    for candidate in chosen:
        if lacking := candidate.lacking():
            example = json.dumps({name: 0.01 if name == "lr" else "..." for name in lacking})
            raise UsageError(f"{candidate.name} must be passed {', '.join(lacking)}; add --kwargs '{example}'.")
    if all_ and not any(candidate.source == "pytorch_optimizer" for candidate in chosen):
        notes.append("pytorch_optimizer is not installed, so only torch's own were measured: pip install "
                     "'projected-grpo[optimizers]'.")  # fmt: skip
    columns = width()  # of stdout, which is about to be exchanged
    with (
        contextlib.redirect_stdout(sys.stderr),
        Console(stderr=True).status("starting") as status,
        _quiet_libraries(),
    ):
        found = survey(chosen, router=Routed, seed=seed, require=require, notes=notes, progress=status.update)
        status.update("against the specification")
        compared = against_reference(seed, device) if reference or all_ else []
    if printed == "text":
        show(reports.render(found, compared, details=details or None, width=columns))
    else:
        write(reports.rendered(found, compared, printed))
    for path in files:
        reports.write(found, compared, path)
    return 0 if found.ok else 1


def _chosen(names: tuple[str, ...], everything: bool) -> "list[Candidate]":
    from invariants.optimizers import everything as known
    from invariants.optimizers import named, torchs_own

    if names and everything:
        raise UsageError(f"--all measures every optimizer there is; leave out {', '.join(names)}.")
    if names:
        return [named(name) for name in names]
    return known() if everything else list(torchs_own())


def _check_device(device: str) -> None:
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(
            f"--device {device!r} is not to be had here ({reason}); leave it out, or name another."
        ) from None


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise UsageError(f"--kwargs {text!r} is no JSON ({error}); write '{{\"lr\": 0.001}}'.") from None
    if not isinstance(value, dict):
        raise UsageError(f"--kwargs {text!r} is no JSON object; write '{{\"lr\": 0.001}}'.")
    return {name: tuple(each) if isinstance(each, list) else each for name, each in value.items()}


@contextlib.contextmanager
def _quiet_libraries() -> Iterator[None]:
    """What linear algebra libraries print by themselves when they meet the NaN that every optimizer is shown."""
    silenced = [1] if sys.stderr.isatty() else [1, 2]  # a terminal shows the progress
    try:
        own = {descriptor: os.dup(descriptor) for descriptor in silenced}
    except OSError:  # there is none
        yield
        return
    with Path(os.devnull).open("wb") as nowhere:
        for descriptor in own:
            os.dup2(nowhere.fileno(), descriptor)
        try:
            yield
        finally:
            for descriptor, saved in own.items():
                os.dup2(saved, descriptor)
                os.close(saved)
