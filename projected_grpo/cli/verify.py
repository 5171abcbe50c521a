"""`projected-grpo verify [MODULE:OBJECT]`: the invariant suite, on this package or on somebody else's code."""

import json
from pathlib import Path
from typing import Annotated

import torch
import tyro
from rich.console import Console

from projected_grpo.cli.suite import ensure_own_suite
from projected_grpo.cli.terminal import console


def verify(
    subject: Annotated[str | None, tyro.conf.Positional] = None,
    /,
    *,
    only: tuple[str, ...] = (),
    tape: Path | None = None,
    seed: int = 0,
    expect: Annotated[dict[str, str], tyro.conf.arg(metavar="ID REASON ...")] = {},  # noqa: B006  (tyro reads it)
    json_: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> int:
    """Run the invariant suite and print a table of verdicts.

    Args:
        subject: module:object of an invariants.Subject; this package if left out.
        only: ids (split.conservation) or families (clip) to run; all if left out.
        tape: a gradient tape to replay; a short run is recorded if left out.
        seed: of the adversarial inputs.
        expect: ids of invariants that are expected to be violated, each with its reason; strict.
        json_: print the report as JSON instead of a table.
    """
    ensure_own_suite()
    import invariants
    from reference.tape import load

    torch.set_num_threads(1)  # the tensors are tiny, and sums keep their order
    if subject is None:
        from projected_grpo.cli.subject import subject as own

        checked = own()
    else:
        checked = invariants.load_subject(subject)
    recorded = None if tape is None else load(tape)
    with Console(stderr=True).status("starting") as status:
        report = invariants.verify(
            checked, tape=recorded, seed=seed, only=only or None, expected_violations=expect, progress=status.update
        )
    if json_:
        print(json.dumps(invariants.as_json(report), indent=2, allow_nan=False))
    else:
        terminal = console()
        given = None if tape is None else str(tape)
        terminal.print(invariants.render(report, spec=subject, tape=given, width=terminal.width))
    return 0 if report.ok else 1
