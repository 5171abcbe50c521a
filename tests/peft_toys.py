"""A tiny Qwen3 with and without an adapter."""

from pathlib import Path
from typing import Any

import torch
import transformers
from peft import PeftModel, get_peft_model
from torch import Tensor, nn

from projected_grpo.adapter import (
    SVDRoutingConfig,
    routed_vectors,
)
from reference.loop import tiny_model

TOKENS = torch.arange(10).reshape(2, 5)


def base(dtype: torch.dtype = torch.float32) -> transformers.Qwen3ForCausalLM:
    return tiny_model(0).to(dtype)


def wrapped(dtype: torch.dtype = torch.float32, **options: Any) -> PeftModel:
    return get_peft_model(base(dtype), SVDRoutingConfig(**options))


def randomise(model: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for pair in routed_vectors(model).values():
            for vector in pair:
                if vector is not None:
                    vector.copy_(0.2 * torch.randn(vector.shape, generator=generator, dtype=torch.float64))
    return model


def logits(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model(TOKENS).logits


def files(path: Path) -> set[str]:
    return {file.name for file in path.iterdir()}


def gradients(model: nn.Module) -> list[Tensor]:
    model.zero_grad()
    model(TOKENS, labels=TOKENS).loss.backward()
    return [vector.grad.clone() for pair in routed_vectors(model).values() for vector in pair]
