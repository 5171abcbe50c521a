"""`projected-grpo pool RUN`: rollouts of a run's model, graded, for others to learn from or to extract V from."""

from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import arg

from projected_grpo.errors import UsageError


def pool(
    run: Annotated[Path, tyro.conf.Positional, arg(metavar="RUN")],
    /,
    *,
    out: Annotated[Path, arg(metavar="FILE")] = Path("pool.jsonl.gz"),
    rollouts: int = 4096,
    view: Literal["trained", "deployed", "base"] = "trained",
    seed: int = 0,
) -> int:
    """Sample rollouts from the model of a run, and write them with the foolable and the strict grade of each.

    A vanilla run that has learned to hack makes a teacher of hacks; train with it by --pool FILE.

    Args:
        run: the folder of a run.
        out: the pool, gzipped JSON lines; an existing one is refused.
        rollouts: how many.
        view: as trained, as deployed without the quarantine, or the model before training.
        seed: of prompts and samples.
    """
    from projected_grpo.training.sampling import sample_pool

    if rollouts < 1:
        raise UsageError(f"--rollouts is {rollouts}; it must be at least 1.")
    if seed < 0:
        raise UsageError(f"--seed is {seed}; it cannot be negative.")
    if out.suffix != ".gz":
        raise UsageError(f"--out {out} does not end in .gz; name a file such as pool.jsonl.gz.")
    if out.exists():
        raise UsageError(f"--out {out} exists; name another file, or remove it first.")
    if not out.absolute().parent.is_dir():
        raise UsageError(f"--out {out} can't be written: there is no directory {out.parent}; make it first.")
    passed, solved = sample_pool(run, out, rollouts, view, seed)
    print(f"{out}: {rollouts} rollouts, {passed} passed, {solved} solved")
    return 0
