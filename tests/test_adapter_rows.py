"""Merged blocks and the gradients of rows, against passes that know neither."""

import pytest
import torch
from peft import get_peft_model
from transformers import Qwen3Config, Qwen3ForCausalLM

from projected_grpo.adapter import (
    AdapterStateError,
    SVDRoutingConfig,
    ablate_quarantine,
    merged,
    routed_vectors,
    row_gradients,
)


@pytest.fixture
def model() -> torch.nn.Module:
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=20, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, head_dim=8,
        intermediate_size=24, max_position_embeddings=16, tie_word_embeddings=True, attn_implementation="eager",
        initializer_range=0.3,
    )  # fmt: skip
    adapted = get_peft_model(Qwen3ForCausalLM(config).double(), SVDRoutingConfig())
    draw = torch.Generator().manual_seed(1)
    for pair in routed_vectors(adapted).values():
        for vector in pair:
            vector.data = torch.randn(vector.shape, generator=draw, dtype=vector.dtype) * 0.1
    return adapted.eval()


TOKENS = torch.arange(12).view(3, 4)


@pytest.mark.parametrize("deployed_only", [False, True])
def test_a_merged_block_runs_what_the_hooks_run_and_restores_every_bit(model, deployed_only):
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        if deployed_only:
            with ablate_quarantine(model):
                expected = model(TOKENS).logits
        else:
            expected = model(TOKENS).logits
        with merged(model, deployed_only=deployed_only):
            inside = model(TOKENS).logits
            changed = [not torch.equal(value, weights[name]) for name, value in model.state_dict().items()]
    with pytest.raises(RuntimeError, match="stop"):
        _raise_inside(merged(model, deployed_only=deployed_only))
    assert float((inside - expected).abs().max()) <= 1e-12 * float(expected.abs().max())
    assert sum(changed) == len(routed_vectors(model)), "the weights really were merged"
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


def _raise_inside(block):
    with block:
        raise RuntimeError("stop")


def test_nothing_is_merged_inside_an_ablated_block(model):
    with ablate_quarantine(model), pytest.raises(AdapterStateError, match="inside an ablate_quarantine"), merged(model):
        pass


def test_rows_are_the_gradients_of_each_row_alone_and_add_up_to_what_lands_in_grad(model):
    def loss(tokens):
        return model(tokens).logits.log_softmax(-1)[..., 0].sum()

    pairs = routed_vectors(model)
    with row_gradients(model) as rows:
        loss(TOKENS).backward()
        taken = rows.take()
    assert taken.keys() == pairs.keys()
    alone = [torch.autograd.grad(loss(TOKENS[[b]]), [pair.deployed for pair in pairs.values()]) for b in range(3)]
    for (name, pair), *by_row in zip(pairs.items(), *alone, strict=True):
        scale = float(pair.deployed.grad.abs().max())
        assert float((taken[name] - torch.stack(by_row)).abs().max()) <= 1e-12 * scale
        assert float((taken[name].sum(0) - pair.deployed.grad).abs().max()) <= 1e-12 * scale
        assert torch.equal(pair.deployed.grad, pair.quarantine.grad)


def test_rows_are_taken_once_and_nothing_is_kept_outside_the_block(model):
    with row_gradients(model) as rows:
        model(TOKENS).logits.sum().backward()
        assert rows.take()
        assert rows.take() == {}
    model(TOKENS).logits.sum().backward()
    assert rows.take() == {}
