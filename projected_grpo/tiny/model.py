"""The tiny models: 85 thousand parameters in 14 Linears and an embedding, of the Qwen3 or the Llama architecture."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel, Qwen3Config

from projected_grpo.tiny.tokens import BEGIN, END, NEW_TOKENS, PAD

Architecture = Literal["qwen3", "llama"]

CONFIGS = {"qwen3": Qwen3Config, "llama": LlamaConfig}


def sizes(*, tokens: int, prompt_tokens: int) -> dict[str, Any]:
    """What decides a model's shape, for a vocabulary and prompts of one length."""
    return {
        "vocab_size": tokens,
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "head_dim": 16,
        "intermediate_size": 128,
        "initializer_range": 0.05,
        "max_position_embeddings": prompt_tokens + NEW_TOKENS,
        "tie_word_embeddings": True,
        "bos_token_id": BEGIN,
        "eos_token_id": END,
        "pad_token_id": PAD,
    }


def build(seed: int, sizes: Mapping[str, Any], architecture: Architecture) -> PreTrainedModel:
    """An untrained model in float32 and eval mode; one seed, one model, whatever was drawn before it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(CONFIGS[architecture](**sizes), dtype=torch.float32)
    return model.eval()
