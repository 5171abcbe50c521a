"""Merged blocks and the gradients of rows, against passes that know neither."""

from contextlib import nullcontext

import pytest
import torch
from peft import get_peft_model
from transformers import Qwen3Config, Qwen3ForCausalLM

from projected_grpo.adapter import (
    AdapterStateError,
    SVDRoutingConfig,
    ablate_quarantine,
    materialized,
    merged,
    routed_vectors,
    row_gradients,
)
from projected_grpo.adapter.vectors import layers_or_refuse
from projected_grpo.bench.counts import counted


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


def test_rows_of_several_passes_add_up(model):
    with row_gradients(model) as rows:
        (model(TOKENS).logits[..., 0].sum() + model(TOKENS.flip(1)).logits[..., 1].sum()).backward()
        taken = rows.take()
    for name, pair in routed_vectors(model).items():
        largest = float(pair.deployed.grad.abs().max())
        assert taken[name].shape == (3, *pair.deployed.shape)
        assert float((taken[name].sum(0) - pair.deployed.grad).abs().max()) <= 1e-12 * largest


def test_rows_of_passes_that_differ_in_their_number_are_not_added(model):
    with row_gradients(model) as rows:
        (model(TOKENS).logits.sum() + model(TOKENS[:1]).logits.sum()).backward()
        with pytest.raises(RuntimeError, match="equal size"):
            rows.take()


def test_a_pass_without_rows_adds_nothing(model):
    layer = next(iter(layers_or_refuse(model).values()))
    with row_gradients(model) as rows:
        layer(torch.zeros(0, 4, layer.in_features, dtype=torch.float64)).sum().backward()
        assert rows.take() == {}


def test_rows_cost_two_operator_calls_a_module(model):
    """The sum over rows, which autograd would take together with that over tokens, and the copy that is kept."""

    def backward():
        model(TOKENS).logits.sum().backward()

    def backward_by_rows():
        with row_gradients(model) as rows:
            backward()
            rows.take()

    backward()  # so that gradients are there, and are added to
    assert counted(backward_by_rows).calls == counted(backward).calls + 2 * len(routed_vectors(model))


def test_a_materialized_block_has_the_outputs_and_the_gradients_of_the_additive_form(model):
    pairs = routed_vectors(model)
    layer = next(iter(layers_or_refuse(model).values()))
    x = torch.linspace(-1, 1, 5 * layer.in_features).double().view(5, -1)
    seen, products = [], []
    for block in (nullcontext(), materialized(model)):
        with block:
            products.append(layer(x))
            logits = model(TOKENS).logits
            logits.log_softmax(-1)[..., 0].sum().backward()
        seen.append((logits.detach(), {name: pair.deployed.grad.clone() for name, pair in pairs.items()}))
        assert all(torch.equal(pair.deployed.grad, pair.quarantine.grad) for pair in pairs.values())
        for pair in pairs.values():
            pair.deployed.grad = pair.quarantine.grad = None
    (additive, gradients), (whole, others) = seen
    assert not torch.equal(*products), "the block runs something else"
    assert float((additive - whole).abs().max()) <= 1e-12 * float(additive.abs().max())
    for name, g in gradients.items():
        assert float((g - others[name]).abs().max()) <= 1e-12 * float(g.abs().max())


def test_inside_a_materialized_block_the_base_and_the_ablated_model_are_what_they_are(model):
    views = (model.disable_adapter, lambda: ablate_quarantine(model))
    with torch.no_grad():
        expected = [_under(view, model) for view in views]
        with materialized(model):
            inside = [_under(view, model) for view in views]
    assert all(torch.equal(a, b) for a, b in zip(expected, inside, strict=True))


def _under(view, model):
    with view():
        return model(TOKENS).logits


def test_nothing_is_materialized_twice_over_or_left_behind(model):
    with ablate_quarantine(model), pytest.raises(AdapterStateError, match="or inside an ablate"), materialized(model):
        pass
    with merged(model), pytest.raises(AdapterStateError, match="is merged"), materialized(model):
        pass
    with pytest.raises(RuntimeError, match="stop"):
        _raise_inside(materialized(model))
    assert all(layer.materialized is None for layer in layers_or_refuse(model).values())
