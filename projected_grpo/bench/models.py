"""Random models that the adapter, generation and extraction are measured on, as large as the machine can run.

On a GPU the widths are those of the preset, with fewer layers: the ratios to the base model depend on the widths. On a
CPU a layer of a published model takes seconds for one batch, so a narrower model stands in, and the report says so.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from projected_grpo.adapter import Decomposition, SVDRoutingConfig, layer, routed_vectors
from projected_grpo.bench.setting import SEED, Setting
from projected_grpo.bench.shapes import ModelShape

NARROW = ModelShape(
    name="narrow", source="small enough for one CPU thread", layers=2, hidden=512, intermediate=1536, heads=8,
    key_value_heads=4, head_dim=64, vocabulary=512,
)  # fmt: skip
LAYERS, VOCABULARY = 2, 4096
LARGEST_DECOMPOSED = 1024  # above, random factors stand in for those of a decomposition, which would take minutes


def runnable(setting: Setting) -> ModelShape:
    """The shape of the model that is run."""
    if setting.device.type == "cuda":
        return setting.shape.cut(layers=LAYERS, vocabulary=VOCABULARY)
    return NARROW if setting.shape.hidden > NARROW.hidden else setting.shape.cut(layers=LAYERS, vocabulary=VOCABULARY)


def base_model(setting: Setting) -> nn.Module:
    """A frozen causal language model with random weights, in eval mode; the same at every call."""
    from transformers import AutoModelForCausalLM, Qwen3Config

    shape = runnable(setting)
    config = Qwen3Config(
        hidden_size=shape.hidden, intermediate_size=shape.intermediate, num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads, num_key_value_heads=shape.key_value_heads, head_dim=shape.head_dim,
        vocab_size=shape.vocabulary, tie_word_embeddings=True, max_position_embeddings=max(setting.tokens, 4096),
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]), torch.device(setting.device):
        torch.manual_seed(SEED)
        model: nn.Module = AutoModelForCausalLM.from_config(config, dtype=setting.dtype)
    return model.eval().requires_grad_(False)


def adapted_model(setting: Setting, *, quarantine: bool = True) -> nn.Module:
    """The base model with vectors that are not zero, so that no term of the adapter is; with both of them, or one."""
    from peft import get_peft_model

    with warnings.catch_warnings(), _random_factors_where_wide():
        # PEFT reads a deprecated property of transformers' models each time it wraps one.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        model: nn.Module = get_peft_model(base_model(setting), SVDRoutingConfig(quarantine=quarantine)).eval()
    draw = torch.Generator().manual_seed(SEED)
    for pair in routed_vectors(model).values():
        for vector in pair:
            if vector is not None:
                vector.data.copy_(1e-3 * torch.randn(vector.shape, generator=draw))
    return model


def embeddings(setting: Setting, model: nn.Module) -> Tensor:
    """Embeddings of random tokens (B, T, hidden) that require a gradient: (batch, tokens / batch)."""
    shape = runnable(setting)
    draw = torch.Generator().manual_seed(SEED)
    ids = torch.randint(shape.vocabulary, (setting.batch, setting.tokens // setting.batch), generator=draw)
    table: Any = model.get_input_embeddings()  # type: ignore[operator]  # transformers' and PEFT's own method
    with torch.no_grad():
        embedded: Tensor = table(ids.to(setting.device))
    return embedded.requires_grad_()


def operations(setting: Setting) -> float:
    """Floating-point operations of one forward pass of the base model over a batch, attention's products left out."""
    return 2.0 * setting.tokens * sum(module.d_in * module.d_out for module in runnable(setting).modules())


@contextmanager
def _random_factors_where_wide() -> Iterator[None]:
    # The name under which the layer looks it up; nothing else is replaced.
    decomposition_of = layer.decomposition_of  # type: ignore[attr-defined]  # imported there, not exported

    def factors(weight: Tensor, svd_dtype: str, fingerprint: str) -> Decomposition:
        if min(weight.shape) <= LARGEST_DECOMPOSED:
            own: Decomposition = decomposition_of(weight, svd_dtype, fingerprint)
            return own
        U, Vh = (
            torch.linalg.qr(torch.randn(size, min(weight.shape), device=weight.device))[0] for size in weight.shape
        )
        ones = torch.ones(min(weight.shape), device=weight.device)
        return Decomposition(*(factor.to(weight.dtype).contiguous() for factor in (U, ones, Vh.mT)))

    layer.decomposition_of = factors  # type: ignore[attr-defined]  # as above
    try:
        yield
    finally:
        layer.decomposition_of = decomposition_of  # type: ignore[attr-defined]  # as above
