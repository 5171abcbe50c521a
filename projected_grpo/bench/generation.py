"""Sampling with a key-value cache: the base model, weights that were merged once, and the adapter's additive form."""

import torch
from torch import Tensor, nn

from projected_grpo.adapter import merged
from projected_grpo.bench.models import adapted_model, base_model, runnable
from projected_grpo.bench.report import Row, Settings, rows_of
from projected_grpo.bench.setting import SEED, Setting
from projected_grpo.bench.timing import Job, interleaved
from projected_grpo.generation import sample

PROMPT, NEW = 32, 32  # tokens
BASE, MERGED, ADDITIVE = "base model", "merged weights", "additive form"
MERGING = "merging, and restoring the weights"


def measure_generation(setting: Setting) -> list[Row]:
    """Completions of NEW tokens for a batch of prompts, and what it takes to merge the weights before it."""
    base, additive, whole = base_model(setting), adapted_model(setting), adapted_model(setting)
    draw = torch.Generator().manual_seed(SEED)
    shape = runnable(setting)
    prompts = torch.randint(shape.vocabulary, (setting.batch, PROMPT), generator=draw).to(setting.device)

    def merging() -> None:
        with merged(additive):
            pass

    with merged(whole):
        jobs: dict[str, Job] = {
            BASE: lambda: sampled(base, prompts),
            MERGED: lambda: sampled(whole, prompts),
            ADDITIVE: lambda: sampled(additive, prompts),
            MERGING: merging,
        }
        timed = interleaved(jobs, device=setting.device, budget=3 * setting.budget)
    settings: Settings = {
        "hidden": shape.hidden, "layers": shape.layers, "batch": setting.batch, "new tokens": NEW,
        "dtype": str(setting.dtype),
    }  # fmt: skip
    rows = rows_of(timed, group="generation", settings=settings, baseline=BASE)
    saved = (timed.timing(ADDITIVE).median - timed.timing(MERGED).median) / NEW
    if saved > 0:
        steps = timed.timing(MERGING).median / saved
        rows.append(
            Row(
                group="generation", name="decoding steps after which merging has paid for itself", settings=settings,
                numbers={"steps": steps},
            )
        )  # fmt: skip
    return rows


def sampled(model: nn.Module, prompts: Tensor) -> Tensor:
    """The likeliest completions of NEW tokens, for prompts (B, P)."""
    # PEFT's own wrapper around the model does nothing for this adapter, and takes as long as a layer of a small model.
    inner: nn.Module = model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]  # PEFT's own
    return sample(
        inner, prompts, torch.ones_like(prompts), max_new_tokens=NEW, eos_ids=[-1], pad_id=0, temperature=0.0,
        generator=torch.Generator(),
    )  # fmt: skip
