"""`projected-grpo verify [MODULE:OBJECT]`: the invariant suite, on this package or on somebody else's code."""

import contextlib
import json
import sys
from pathlib import Path
from typing import Annotated

import torch
import tyro
from rich.console import Console

from projected_grpo.cli.suite import ensure_own_suite
from projected_grpo.cli.terminal import show, width, write


def verify(
    subject: Annotated[str | None, tyro.conf.Positional] = None,
    /,
    *,
    only: tuple[str, ...] | None = None,
    tape: Path | None = None,
    seed: int = 0,
    expect: Annotated[tuple[tuple[str, str], ...], tyro.conf.arg(metavar="ID REASON"), tyro.conf.UseAppendAction] = (),
    json_: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> int:
    """Run the invariant suite and print a table of verdicts.

    Args:
        subject: module:object of an invariants.Subject; this package if left out.
        only: ids (split.conservation) or families (clip) to run; all if left out.
        tape: a gradient tape to replay; a short run is recorded if left out.
        seed: of the adversarial inputs.
        expect: an invariant that is expected to be violated ("ID", or "ID @ SETTING"), and why; strict.
        json_: print the report as JSON instead of a table.
    """
    ensure_own_suite()
    import invariants
    from reference.tape import load

    torch.set_num_threads(1)  # the tensors are tiny, and sums keep their order
    recorded = None if tape is None else load(tape)
    # What a subject prints goes to stderr: stdout is the report's.
    with contextlib.redirect_stdout(sys.stderr), Console(stderr=True).status("starting") as status:
        if subject is None:
            from projected_grpo.cli.subject import subject as own

            checked = own()
        else:
            checked = invariants.load_subject(subject)
        report = invariants.verify(
            checked,
            tape=recorded,
            seed=seed,
            only=only,
            expected_violations=dict(expect),
            progress=status.update,
        )
    if json_:
        write(json.dumps(invariants.as_json(report), indent=2, allow_nan=False))
    else:
        given = None if tape is None else str(tape)
        show(invariants.render(report, spec=subject, tape=given, width=width()))
    return 0 if report.ok else 1
