"""The tiny models: 85 thousand parameters in 14 Linears and an embedding, of the Qwen3 or the Llama architecture."""

from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel, Qwen3Config

from projected_grpo.testbed import vocabulary as v
from projected_grpo.testbed.completions import NEW_TOKENS
from projected_grpo.testbed.task import PROMPT_TOKENS

Architecture = Literal["qwen3", "llama"]

SIZES: dict[str, Any] = {
    "vocab_size": len(v.TOKENS),
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 16,
    "intermediate_size": 128,
    "initializer_range": 0.05,
    "max_position_embeddings": PROMPT_TOKENS + NEW_TOKENS,
    "tie_word_embeddings": True,
    "bos_token_id": v.BEGIN,
    "eos_token_id": v.END,
    "pad_token_id": v.PAD,
}

CONFIGS = {"qwen3": Qwen3Config, "llama": LlamaConfig}


def build(seed: int, *, architecture: Architecture = "qwen3") -> PreTrainedModel:
    """An untrained model in float32 and eval mode; one seed, one model, whatever was drawn before it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(CONFIGS[architecture](**SIZES), dtype=torch.float32)
    return model.eval()


def save(model: PreTrainedModel, folder: Path) -> None:
    """Writes model and tokenizer, so that AutoModelForCausalLM and AutoTokenizer read them from the folder."""
    model.save_pretrained(folder)
    v.tokenizer().save_pretrained(folder)
