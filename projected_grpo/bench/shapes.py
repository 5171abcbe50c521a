"""Shapes of the modules that an adapter would adapt, of published models or of a model in a local folder.

Only numbers: no weights are made or read. An adapter by default adapts every Linear but the output head, which in these
decoders is seven a layer, and a module's vectors are as long as its weight has singular values, r = min(in, out).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from projected_grpo.errors import SettingError


class Module(NamedTuple):
    """One Linear that would be adapted."""

    name: str
    d_in: int
    d_out: int

    @property
    def r(self) -> int:
        """How long its vectors are."""
        return min(self.d_in, self.d_out)


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """A decoder of the Llama family, by the numbers of its published config.json."""

    name: str
    source: str  # where the numbers are from
    layers: int
    hidden: int
    intermediate: int
    heads: int
    key_value_heads: int
    head_dim: int
    vocabulary: int

    def modules(self) -> list[Module]:
        """Every Linear but the output head, in the order of the model."""
        queries, keys = self.heads * self.head_dim, self.key_value_heads * self.head_dim
        of_a_layer = [
            ("self_attn.q_proj", self.hidden, queries),
            ("self_attn.k_proj", self.hidden, keys),
            ("self_attn.v_proj", self.hidden, keys),
            ("self_attn.o_proj", queries, self.hidden),
            ("mlp.gate_proj", self.hidden, self.intermediate),
            ("mlp.up_proj", self.hidden, self.intermediate),
            ("mlp.down_proj", self.intermediate, self.hidden),
        ]
        return [
            Module(f"model.layers.{layer}.{name}", d_in, d_out)
            for layer in range(self.layers)
            for name, d_in, d_out in of_a_layer
        ]

    def cut(self, *, layers: int, vocabulary: int) -> "ModelShape":
        """The same widths with fewer layers and a smaller vocabulary, to be run where the whole would not fit."""
        return replace(self, layers=min(layers, self.layers), vocabulary=min(vocabulary, self.vocabulary))


def _qwen3(size: str, layers: int, hidden: int, intermediate: int, heads: int) -> ModelShape:
    return ModelShape(
        name=f"Qwen3-{size}", source=f"huggingface.co/Qwen/Qwen3-{size}, config.json", layers=layers, hidden=hidden,
        intermediate=intermediate, heads=heads, key_value_heads=8, head_dim=128, vocabulary=151936,
    )  # fmt: skip


PRESETS: Mapping[str, ModelShape] = {
    shape.name: shape
    for shape in (
        ModelShape(
            name="tiny", source="the model of this package's testbed", layers=2, hidden=64, intermediate=128, heads=4,
            key_value_heads=4, head_dim=16, vocabulary=64,
        ),
        _qwen3("0.6B", 28, 1024, 3072, 16),
        _qwen3("4B", 36, 2560, 9728, 32),
        _qwen3("8B", 36, 4096, 12288, 32),
        _qwen3("32B", 64, 5120, 25600, 64),
        ModelShape(
            name="Llama-3-8B", source="huggingface.co/meta-llama/Meta-Llama-3-8B, config.json", layers=32, hidden=4096,
            intermediate=14336, heads=32, key_value_heads=8, head_dim=128, vocabulary=128256,
        ),
    )
}  # fmt: skip


def preset(name: str) -> ModelShape:
    """The shape of a published model.

    Raises:
        SettingError: there is none of that name.
    """
    if name not in PRESETS:
        raise SettingError(f"There is no preset {name!r}; choose one of {', '.join(PRESETS)}, or pass --model.")
    return PRESETS[name]


def of_folder(folder: Path) -> tuple[ModelShape, list[Module]]:
    """The shape of a model in a local folder, and its own modules as its code builds them on the meta device.

    Raises:
        SettingError: the folder holds no configuration that transformers can build a causal language model from, or the
            model has none of the numbers that a decoder has.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    if not (folder / "config.json").is_file():
        raise SettingError(f"{folder} holds no config.json; pass the folder of a model, or choose a --preset.")
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
    except Exception as error:  # config.json says what its readers are told, and they refuse it in their own ways
        raise SettingError(f"{folder} cannot be built: {' '.join(str(error).split())}") from error
    head = model.get_output_embeddings()
    modules = [
        Module(name, layer.in_features, layer.out_features)
        for name, layer in model.named_modules()
        if isinstance(layer, torch.nn.Linear) and layer is not head
    ]
    if not modules:
        raise SettingError(f"The model of {folder} has no Linear to adapt; choose a --preset.")
    return _numbers(folder, config), modules


def _numbers(folder: Path, config: Any) -> ModelShape:
    try:
        heads = int(config.num_attention_heads)
        return ModelShape(
            name=folder.name, source=str(folder / "config.json"), layers=int(config.num_hidden_layers),
            hidden=int(config.hidden_size), intermediate=int(config.intermediate_size), heads=heads,
            key_value_heads=int(getattr(config, "num_key_value_heads", None) or heads),
            head_dim=int(getattr(config, "head_dim", None) or config.hidden_size // heads),
            vocabulary=int(config.vocab_size),
        )  # fmt: skip
    except AttributeError as error:
        raise SettingError(
            f"{folder} is no decoder whose layers can be measured ({error}); choose a --preset."
        ) from error
