"""Post-hoc arms: what a finished run has learned, split along a basis once. No training, so seconds a run."""

import json
from pathlib import Path

from safetensors.torch import load_file

from projected_grpo.split import SplitRule
from projected_grpo.training import checkpoints
from projected_grpo.training.config import TrainConfig
from projected_grpo.training.evaluation import evaluate, off_the_axes, projected
from projected_grpo.training.folder import REPORT, VECTORS, write_json
from projected_grpo.training.hack_basis import chosen_pairs, first_basis
from projected_grpo.training.report import plain
from projected_grpo.training.setting import make_policy_and_task


def project_afterwards(config: TrainConfig, run: Path, place: Path) -> None:
    """Writes the report of a run's model after its displacement was split along the basis that `config` describes.

    config: the run's, with another basis; V is extracted where the run began. The views: base and trained, as the
    run's own report has them; deployed, after the split; off_axes, without anything along V.
    """
    report = json.loads((run / REPORT).read_text(encoding="utf-8"))
    policy, task = make_policy_and_task(config)
    try:
        seed = config.run.seed
        seen, held_out = chosen_pairs(task, config.basis, seed=seed)
        basis = first_basis(policy, seen, held_out, config.basis, seed=seed).basis
        prompts = task.evaluation(config.evaluation.evaluation_prompts)
        checkpoints.restore(policy.vectors, load_file(run / VECTORS))
        views = {}
        for view, block in (
            ("deployed", projected(policy, basis, SplitRule())),
            ("off_axes", off_the_axes(policy, basis)),
        ):
            with block:
                views[view] = plain(evaluate(policy, task, prompts, config.grpo, view="deployed", seed=seed))
    finally:
        task.close()
    rates = {view: report["rates"][view] for view in ("base", "trained")} | views
    place.mkdir(parents=True, exist_ok=True)
    write_json(place / REPORT, {**report, "arm": "posthoc", "rates": rates})
