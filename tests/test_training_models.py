"""Other models through --model PATH: two architectures, two precisions, both tasks."""

import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from training_toys import moved, toy
from transformers import AutoModelForCausalLM, LlamaConfig, OPTConfig, PreTrainedTokenizerFast, Qwen3Config

from projected_grpo import testbed
from projected_grpo.environment import bundled_problems
from projected_grpo.training import ModelConfig, ModelError, TaskError, Trainer
from projected_grpo.training.checkpoints import named
from projected_grpo.training.policy import load

CONFIGS = {"llama": LlamaConfig, "qwen3": Qwen3Config}


def bytes_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE, trained on the bundled problems here and now."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<end>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )  # fmt: skip
    backend.train_from_iterator([problem.canonical for problem in bundled_problems()], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>")


@pytest.fixture(scope="module")
def programmers(tmp_path_factory) -> dict[str, Path]:
    """Untrained models of two architectures with a tokenizer of text."""
    made = {}
    for name, config in CONFIGS.items():
        made[name] = tmp_path_factory.mktemp(name)
        torch.manual_seed(0)
        sizes = {
            "vocab_size": 400, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
            "num_key_value_heads": 1, "head_dim": 16, "intermediate_size": 48, "max_position_embeddings": 1024,
            "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0,
        }  # fmt: skip
        AutoModelForCausalLM.from_config(config(**sizes)).save_pretrained(made[name])
        bytes_tokenizer().save_pretrained(made[name])
    return made


@pytest.mark.parametrize(
    ("architecture", "dtype"),
    [
        ("llama", "float32"), ("qwen3", "bfloat16"),
        pytest.param("llama", "bfloat16", marks=pytest.mark.long),
        pytest.param("qwen3", "float32", marks=pytest.mark.long),
    ],
)  # fmt: skip
def test_a_model_of_text_learns_from_the_pairs_that_teach_it(programmers, architecture, dtype):
    config = toy(
        model={"model": str(programmers[architecture]), "dtype": dtype},
        task={"task": "code"},
        grpo={"steps": 2, "prompts": 2, "group": 4, "max_new_tokens": 200, "micro_batch": 4},
        basis={"pairs": 3, "k": 2, "refresh_every": 0},
        teacher={"mix": 0.5, "teacher_steps": None},
        evaluation={"evaluation_prompts": 2, "evaluate_every": 0},
    )
    seen = []
    with Trainer(config, None, watch=seen.append) as run:
        run.run()
        vectors = named(run.policy.vectors)
    assert {v.dtype for v in vectors.values()} == {torch.float32}
    assert all(bool(v.isfinite().all()) for v in vectors.values())
    assert moved(vectors, "deployed")
    assert moved(vectors, "quarantine")
    taught = [own.rollouts.teacher for own in seen]
    assert any(bool(t.any()) for t in taught), "the teacher was there"
    assert any(bool(own.rollouts.scored.passed[t].any()) for own, t in zip(seen, taught, strict=True))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_model_of_the_other_architecture_takes_the_testbed(tmp_path, dtype):
    testbed.save(testbed.build(0, architecture="llama"), tmp_path)
    with Trainer(toy(model={"model": str(tmp_path), "dtype": dtype}, grpo={"steps": 2}), None) as run:
        run.run()
        assert moved(named(run.policy.vectors), "quarantine")


def test_a_model_without_the_testbeds_tokens_is_told_what_to_do(programmers):
    with pytest.raises(TaskError, match="--task code"):
        Trainer(toy(model={"model": str(programmers["llama"])}), None)


def test_a_model_that_flattens_its_batch_is_refused(tmp_path):
    sizes = {
        "vocab_size": 45, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "ffn_dim": 24,
        "max_position_embeddings": 64, "word_embed_proj_dim": 16, "bos_token_id": 1, "eos_token_id": 2,
        "pad_token_id": 0,
    }  # fmt: skip
    AutoModelForCausalLM.from_config(OPTConfig(**sizes)).save_pretrained(tmp_path)
    testbed.tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="cannot be trained here"):
        Trainer(toy(model={"model": str(tmp_path)}), None)


def test_a_tokenizer_without_text_is_refused_for_programs():
    with pytest.raises(TaskError, match="no tokens for the text"):
        Trainer(toy(task={"task": "code"}), None)


def test_dropout_is_out_when_activations_are_recomputed(tmp_path):
    model = testbed.build(0)
    model.config.attention_dropout = 0.5
    testbed.save(model, tmp_path)
    policy, _ = load(ModelConfig(model=str(tmp_path), gradient_checkpointing=True))
    batch = policy.completed([[1, 2, 3]], [[20, 21, 2]])
    policy.model.train()
    with torch.no_grad():
        assert torch.equal(policy.log_probs(batch), policy.log_probs(batch))


def test_what_is_no_model_is_named(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "nothing"}))
    with pytest.raises(ModelError, match="cannot be loaded as a causal language model"):
        Trainer(toy(model={"model": str(tmp_path)}), None)
    testbed.save(testbed.build(0), tmp_path / "cut")
    (tmp_path / "cut" / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(ModelError, match="cannot be loaded"):
        Trainer(toy(model={"model": str(tmp_path / "cut")}), None)
    with pytest.raises(ModelError, match="device"):
        Trainer(toy(model={"device": "nowhere"}), None)
