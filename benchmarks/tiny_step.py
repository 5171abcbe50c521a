"""How long a step of the tiny experiment takes, beside transformers' batched generate and a backward pass per source.

    python benchmarks/tiny_step.py [--json] [--every 10] [--rounds 3]

One run, taught by a pool of pairs so that there are two sources of rollouts. Every few steps both ways take the same
step from the same vectors, in turns: sampling for the same prompts, grading, and the gradient of each source. What is
compared differs in three things: `generate` with the adapter's hooks, as most code of this kind runs it, or with merged
weights; every completion run, whether equal to another or not; and a forward and a backward pass for each source.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial

import torch

from projected_grpo.adapter import merged
from projected_grpo.generation import completion_mask
from projected_grpo.grpo import advantages, completion_losses, loss_denominator
from projected_grpo.training import Trainer
from projected_grpo.training.config import TrainConfig
from projected_grpo.training.learning import accumulate
from projected_grpo.training.policy import Completions, joined
from projected_grpo.training.presets import PRESETS
from projected_grpo.training.rollouts import Rollouts, collect

BOUND = 1.8


def taught() -> TrainConfig:
    """The tiny experiment, half of each group a teacher's."""
    tiny = PRESETS["tiny"]
    return replace(
        tiny, teacher=replace(tiny.teacher, teach_pairs=True, mix=0.5),
        evaluation=replace(tiny.evaluation, evaluate_every=0),
    )  # fmt: skip


def ours(run: Trainer) -> None:
    """As the trainer does it; the vectors stay where they are."""
    accumulate(run.policy, _collected(run), run.config.grpo)


def _collected(run: Trainer) -> Rollouts:
    return collect(
        run.policy, run.task, run.config.grpo, run.config.teacher, run._pool, seed=run.config.run.seed, step=run.done
    )


def usual(run: Trainer, found: Rollouts, *, merge: bool) -> None:
    """The same prompts, the same teacher's completions, and as many of the student's as `found` has."""
    policy, config = run.policy, run.config.grpo
    student = (~found.teacher).nonzero().squeeze(1)
    ids, mask = found.completions.prompt_ids[student], found.completions.prompt_mask[student]
    with torch.no_grad(), merged(policy.model) if merge else nullcontext():
        whole = policy.model.generate(
            input_ids=ids, attention_mask=mask, do_sample=True, top_k=0, max_new_tokens=config.max_new_tokens,
            eos_token_id=list(policy.end_ids), pad_token_id=policy.pad_id,
        )  # fmt: skip
    new = whole[:, ids.shape[1] :]
    own = Completions(ids, mask, new, completion_mask(new, policy.end_ids))
    teacher = found.teacher.nonzero().squeeze(1)
    order = torch.argsort(torch.cat([student, teacher]))
    batch = joined([own, found.completions[teacher]], policy.pad_id)[order]
    scored = run.task.grade(found.prompts, batch.ids)
    A = advantages(scored.reward.view(config.prompts, config.group)).flatten()
    for source in (student, teacher):
        rows = batch[source]
        losses = completion_losses(
            policy.log_probs(rows), A[source], rows.mask,
            denominator=loss_denominator(
                prompts_per_step=config.prompts, group=config.group, max_new_tokens=config.max_new_tokens
            ),
        )  # fmt: skip
        torch.autograd.backward(losses.sum())


def seconds(work: Callable[[], None]) -> float:
    """By the clock, for grading is done by another process."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main() -> int:
    """Prints medians and ratios over the run, and whether the bound is kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--every", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    found: dict[str, list[float]] = {"ours": [], "generate, hooks": [], "generate, merged": []}
    with Trainer(taught(), None) as run:
        while run.done < run.config.grpo.steps:
            if run.done % given.every == 0:
                rollouts = _collected(run)
                ways = {
                    "ours": partial(ours, run),
                    "generate, hooks": partial(usual, run, rollouts, merge=False),
                    "generate, merged": partial(usual, run, rollouts, merge=True),
                }
                turns = [{name: seconds(way) for name, way in ways.items()} for _ in range(given.rounds)]
                for name in found:
                    found[name].append(statistics.median(turn[name] for turn in turns))
            run.step()
    total = {name: sum(each) for name, each in found.items()}
    ratios = {name: total[name] / total["ours"] for name in total}
    if given.json:
        print(json.dumps({"seconds": found, "ratios": ratios}))
    else:
        print(
            f"{'step':18}"
            + "".join(f"{at * given.every:8d}" for at in range(len(found["ours"])))
            + "   all, beside ours"
        )
        for name, each in found.items():
            print(f"{name:18}" + "".join(f"{s:8.3f}" for s in each) + f"   {ratios[name]:.2f}")
        print(f"{'within' if ratios['generate, hooks'] >= BOUND else 'BELOW'} the bound of {BOUND} times")
    return 0 if ratios["generate, hooks"] >= BOUND else 1


if __name__ == "__main__":
    sys.exit(main())
