"""Sampling with a cache: the tokens of a plain loop, padding that changes nothing, and nothing left behind."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from projected_grpo.errors import SettingError, ShapeMismatchError
from projected_grpo.generation import _can_select, completion_mask, has_ended, sample
from projected_grpo.testbed import END, PAD, TOKENS, build, draw
from projected_grpo.tiny.model import Architecture


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sampled(model: nn.Module, prompts: Tensor, mask: Tensor | None = None, **changed: Any) -> Tensor:
    settings: dict[str, Any] = {"max_new_tokens": 12, "eos_ids": [END], "pad_id": PAD, "generator": seeded()}
    return sample(model, prompts, torch.ones_like(prompts) if mask is None else mask, **(settings | changed))


def loop_without_cache(
    model: nn.Module, prompts: Tensor, new_tokens: int, ends: list[int], draws: torch.Generator
) -> Tensor:
    """What `sample` means, in the fewest words."""
    tokens = prompts
    for _ in range(new_tokens):
        cumulative = torch.softmax(model(tokens).logits[:, -1], dim=-1).cumsum(dim=-1)
        luck = torch.rand(len(tokens), 1, dtype=torch.float64, generator=draws)
        drawn = (cumulative <= luck * cumulative[:, -1:]).sum(dim=1, keepdim=True)
        over = torch.isin(tokens[:, prompts.shape[1] :], torch.tensor(ends)).any(dim=1, keepdim=True)
        tokens = torch.cat([tokens, torch.where(over, PAD, drawn)], dim=1)
        if torch.isin(tokens[:, prompts.shape[1] :], torch.tensor(ends)).any(dim=1).all():
            break
    return tokens[:, prompts.shape[1] :]


@pytest.fixture(scope="module")
def prompts() -> Tensor:
    return draw(24, seeded(7)).prompts


@pytest.fixture(scope="module", params=["qwen3", "llama"])
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    """Untrained: its tokens are nearly uniform, so one wrong logit shows soon."""
    architecture: Architecture = request.param
    return build(0, architecture=architecture).double()


@pytest.mark.parametrize("ends", [[END], [END, 9, 30]])
@torch.no_grad()
def test_the_tokens_are_those_of_a_loop_without_a_cache(
    model: PreTrainedModel, prompts: Tensor, ends: list[int]
) -> None:
    """In float64, from one generator, token for token; some rows end early and some never."""
    expected = loop_without_cache(model, prompts, 12, ends, seeded(3))
    found = sampled(model, prompts, eos_ids=ends, generator=seeded(3))
    assert torch.equal(found, expected)
    assert 0 < int(has_ended(found, ends).sum()) < 24


@torch.no_grad()
def test_equal_prompts_are_run_once_and_rows_that_have_ended_no_more(model: PreTrainedModel, prompts: Tensor) -> None:
    """And the tokens are still those of the loop, which does neither."""
    repeated = prompts[:3].repeat_interleave(8, dim=0)[torch.randperm(24, generator=seeded())]
    ends = [END, *range(20, 30)]
    expected = loop_without_cache(model, repeated, 12, ends, seeded(4))
    rows: list[int] = []
    seen = model.register_forward_pre_hook(
        lambda _, __, kwargs: rows.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    found = sampled(model, repeated, eos_ids=ends, generator=seeded(4))
    seen.remove()
    assert torch.equal(found, expected)
    assert rows[:2] == [3, 24]
    assert rows[-1] <= 12
    assert rows[1:] == sorted(rows[1:], reverse=True)


def test_a_cache_whose_rows_cannot_be_told_apart_keeps_the_batch(prompts: Tensor) -> None:
    model = Scripted([[8, END, 7], [9, END, 7], [8, 8, END]])
    assert sampled(model, prompts[:1].repeat(3, 1)).tolist() == [[8, END, PAD], [9, END, PAD], [8, 8, END]]
    assert model.batches == [1, 3, 3, 3]


@pytest.mark.parametrize("state", ["conv_states", "recurrent_states"])
def test_rows_stay_where_a_layer_has_a_state_of_the_whole_batch(state: str) -> None:
    plain = SimpleNamespace(batch_select_indices=None)
    assert _can_select(SimpleNamespace(layers=[plain, plain]))
    assert not _can_select(SimpleNamespace(layers=[plain, SimpleNamespace(batch_select_indices=None, **{state: {}})]))
    assert not _can_select(SimpleNamespace(layers=[plain, SimpleNamespace()]))
    assert not _can_select(None)


def test_padding_on_the_left_changes_nothing(model: PreTrainedModel, prompts: Tensor) -> None:
    """Whatever stands in the padding, and with prompts of several lengths in one batch."""
    padded = torch.cat([torch.randint(45, (24, 4), generator=seeded()), prompts], dim=1)
    mask = torch.cat([torch.zeros(24, 4), torch.ones(24, 8)], dim=1).long()
    assert torch.equal(sampled(model, padded, mask), sampled(model, prompts))
    padded[0, 2:4], mask[0, 2:4] = torch.tensor([5, 6]), 1  # a longer prompt beside the others
    assert torch.equal(sampled(model, padded, mask)[1:], sampled(model, prompts)[1:])


def test_it_stops_as_soon_as_all_have_ended(prompts: Tensor) -> None:
    model = Scripted([[END, 7, 7, 7], [8, END, 7, 7], [9, 9, END, 7]])
    found = sampled(model, prompts[:3], max_new_tokens=100)
    assert found.tolist() == [[END, PAD, PAD], [8, END, PAD], [9, 9, END]]
    assert model.batches == [3, 3, 3]


def test_an_end_that_is_also_the_padding_counts_once(prompts: Tensor) -> None:
    model = Scripted([[8, END, 7, 7], [PAD, 9, 9, END]])
    found = sampled(model, prompts[:2], pad_id=END)
    assert found.tolist() == [[8, END, END, END], [PAD, 9, 9, END]]
    mask = completion_mask(found, [END])
    assert mask.tolist() == [[True, True, False, False], [True] * 4]


def test_a_mask_goes_by_the_first_of_several_ends() -> None:
    completions = torch.tensor([[3, 9, 2, 2], [0, 0, 0, 0], [2, 0, 0, 9]])
    assert completion_mask(completions, [2, 9]).sum(dim=1).tolist() == [2, 4, 1]
    assert has_ended(completions, [2, 9]).tolist() == [True, False, True]


def test_no_end_at_all_fills_the_length(model: PreTrainedModel, prompts: Tensor) -> None:
    assert sampled(model, prompts, eos_ids=[]).shape == (24, 12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_other_precisions_sample_too(dtype: torch.dtype, prompts: Tensor) -> None:
    found = sampled(build(0).to(dtype), prompts)
    assert found.dtype == torch.long
    assert bool(((found >= 0) & (found < len(TOKENS))).all())
    assert torch.equal(found, sampled(build(0).to(dtype), prompts))


def test_temperature(model: PreTrainedModel, prompts: Tensor) -> None:
    """Zero takes the likeliest and draws nothing; a low one does nearly the same; a high one is nearly uniform."""
    untouched = seeded(5)
    greedy = sampled(model, prompts, temperature=0.0, generator=untouched)
    assert torch.equal(untouched.get_state(), seeded(5).get_state())
    assert torch.equal(sampled(model, prompts, temperature=1e-6), greedy)
    hot = sampled(model, prompts.repeat(20, 1), temperature=1e6, max_new_tokens=1)
    assert len(hot.unique()) == len(TOKENS)


@torch.no_grad()
def test_frequencies_are_the_models_probabilities(prompts: Tensor) -> None:
    from projected_grpo.testbed import load

    model, _ = load()
    drawn = sampled(model, prompts[:1].repeat(4000, 1), max_new_tokens=3)[:, 2]
    first_two = torch.tensor([[TOKENS.index("class Solution:\n"), TOKENS.index(" def f(self,x):\n")]])
    expected = torch.softmax(model(torch.cat([prompts[:1], first_two], dim=1)).logits[0, -1], dim=-1)
    found = drawn.bincount(minlength=45) / 4000
    assert float((found - expected).abs().max()) < 0.05


def test_nothing_is_left_behind(prompts: Tensor) -> None:
    """Modes of modules, global random state, gradients; and dropout is off meanwhile."""
    model = build(0)
    expected = sampled(model, prompts)
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = 0.5
    model.train()
    model.lm_head.eval()
    state = torch.get_rng_state()
    assert torch.equal(sampled(model, prompts), expected)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert not model.lm_head.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_an_adapted_model_samples_as_its_merged_one(prompts: Tensor) -> None:
    from peft import get_peft_model

    from projected_grpo.adapter import SVDRoutingConfig, routed_vectors

    adapted = get_peft_model(build(0).double(), SVDRoutingConfig(target_modules="all-linear"))
    for pair in routed_vectors(adapted).values():
        nn.init.normal_(pair.deployed, std=0.1, generator=seeded(1))
    with_hooks = sampled(adapted, prompts)
    adapted.merge_adapter()
    assert torch.equal(sampled(adapted, prompts), with_hooks)
    assert not torch.equal(sampled(build(0).double(), prompts), with_hooks)


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"max_new_tokens": 0}, SettingError, "max_new_tokens is 0; it must be a whole number above 0"),
        ({"temperature": -1.0}, SettingError, "temperature is -1.0; it must be a finite number of at least 0"),
        ({"temperature": float("nan")}, SettingError, "temperature is nan; it must be a finite number of at least 0"),
        ({"mask": torch.ones(24, 7)}, ShapeMismatchError, r"attention_mask is \(24, 7\) and prompt_ids \(24, 8\)"),
        (
            {"mask": torch.tensor([[1] * 7 + [0]] * 24)},
            ShapeMismatchError,
            "A prompt ends with padding; pad on the left",
        ),
    ],
)
def test_what_cannot_be_sampled_is_refused(
    changed: dict[str, Any], error: type[Exception], message: str, prompts: Tensor
) -> None:
    with pytest.raises(error, match=message):
        sampled(build(0), prompts, **changed)


class Scripted(nn.Module):
    """Says, row by row, the tokens that it was given."""

    def __init__(self, script: list[list[int]]) -> None:
        super().__init__()
        self.script, self.batches = torch.tensor(script), list[int]()

    def forward(self, input_ids: Tensor, **_: Any) -> SimpleNamespace:
        logits = torch.full((len(input_ids), 1, len(TOKENS)), -torch.inf)
        at = sum(batch == len(self.script) for batch in self.batches)
        logits.scatter_(2, self.script[: len(input_ids), at, None, None], 0.0)
        self.batches.append(len(input_ids))
        return SimpleNamespace(logits=logits, past_key_values=None)
