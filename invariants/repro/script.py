"""A standalone script that shows a violation with torch alone, for an issue tracker or a colleague."""

import math
import textwrap

import torch

from invariants.measurement import Measurement
from invariants.repro import playback
from invariants.repro.literal import literal
from invariants.repro.recording import Recording, recording
from invariants.repro.snippet import SNIPPETS, Residuals, Snippet, source_of
from invariants.verdict import Report, Result, Verdict

HEAD = '''"""{id} is violated.

{statement}

Found by the invariant suite of projected-grpo, and written out with the smallest case that shows it. It needs torch
alone; floats are written so that they give the same bits back.

    subject       {setting}, {dtype}
    case          {where}
    fails when    {fails_when}
    likely cause  {likely_cause}

{usage}
"""
'''

IMPORTS = """from __future__ import annotations

import importlib
import math
import sys
from contextlib import suppress
from itertools import product
from typing import Any

import torch
from torch import Tensor

inf, nan = math.inf, math.nan
"""


def scripts(report: Report) -> dict[str, str]:
    """File name -> script, of every violated invariant that a script can show."""
    made = {f"{result.invariant.id}.py": script(result) for result in report.results}
    return {name: source for name, source in made.items() if source is not None}


def script(result: Result) -> str | None:
    """A script that shows the smallest counterexample of a violated invariant, and exits with 1.

    None for what is not violated, for a violation without a counterexample or a snippet, and for one that does not
    show again when its counterexample is run once more (a subject that draws random numbers, say).
    """
    example, known = result.worst.example, SNIPPETS.get(result.invariant.id)
    if result.verdict is not Verdict.VIOLATED or example is None or known is None:
        return None
    recorded = recording(example.trial)
    if recorded is None:
        return None
    with torch.random.fork_rng(devices=[]):
        try:
            measured = result.invariant.check(recorded.trial)
        except Exception:  # it ran before; a subject that fails now is none to write a script of
            return None
    if measured is None or measured.holds:
        return None
    body = _body(known, recorded, measured)
    entry = _deciding(_compared(body, known), measured)
    if entry is None:
        return None
    label, index = entry
    return f"{_head(result, recorded, measured)}\n{IMPORTS}\n{body}\n{_tail(known, recorded, label, index, measured)}"


def _head(result: Result, recorded: Recording, measured: Measurement) -> str:
    invariant = result.invariant
    usage = "    python THIS_FILE                    judges the outputs that were recorded"
    if recorded.accepts_live:
        usage += "\n    python THIS_FILE module:function    judges your function as it is now"
    return HEAD.format(
        id=invariant.id, statement=textwrap.fill(f"{invariant.statement} ({invariant.theorem})", 118),
        setting=result.worst.setting, dtype=str(recorded.trial.dtype).removeprefix("torch."), where=measured.where,
        fails_when=invariant.fails_when, likely_cause=invariant.likely_cause, usage=usage,
    )  # fmt: skip


def _body(known: Snippet, recorded: Recording, measured: Measurement) -> str:
    """Everything that a script defines: inputs, recorded outputs, what plays them back, and the algebra."""
    parts = ["# What the subject was given."]
    parts += [f"{name} = {literal(value)}" for name, value in recorded.inputs().items()]
    parts += ["", "# What it gave back."]
    parts += [f"{name} = {literal(value)}" for name, value in recorded.outputs().items()]
    parts += [f"reported = {measured.where!r}"]
    functions = [source_of(thing) for thing in recorded.playback] + known.functions()
    if recorded.subject:
        functions.append(f"{recorded.subject} = {recorded.playback[-1].__name__}\n")
    return "\n".join(parts) + "\n\n\n" + "\n\n\n".join(functions)


def _compared(body: str, known: Snippet) -> Residuals:
    """What the script will compare, by running it; it holds nothing but numbers and the functions of this package."""
    names: dict[str, object] = {"__name__": known.id}
    exec(compile(IMPORTS + body, known.id, "exec"), names)
    compared: Residuals = eval(known.call, names)
    return compared


def _deciding(compared: Residuals, measured: Measurement) -> tuple[str, int] | None:
    """The label and the entry of the residual that decided in the report; None if the script doesn't have it."""
    for label, residual in compared.items():
        for index, value in enumerate(residual.flatten().double().abs().tolist()):
            if not math.isfinite(measured.residual):
                if not math.isfinite(value):
                    return label, index
            elif abs(value - measured.residual) <= 1e-9 * measured.residual:  # the same sum in another order
                return label, index
    return None


def _tail(known: Snippet, recorded: Recording, label: str, index: int, measured: Measurement) -> str:
    lines = []
    if recorded.accepts_live:
        lines += ["if len(sys.argv) > 1:", f"    {recorded.subject} = live(sys.argv[1])"]
    else:
        said = "this script judges the outputs that were recorded, and takes no argument"
        lines += ["if len(sys.argv) > 1:", f"    print({said!r}, file=sys.stderr)", "    sys.exit(2)"]
    allowed = f"allowed = {measured.bound!r}  # {known.allows}"
    lines += [allowed, f"judged({known.id!r}, {known.call}, {label!r}, {index}, allowed)"]
    helpers = [playback.judged, *([playback.live] if recorded.accepts_live else [])]
    return "\n\n" + "\n\n\n".join(source_of(f) for f in helpers) + "\n\n\n" + "\n".join(lines) + "\n"
