"""The warm-up and its files: one seed one model, written at once or not at all, and never trusted unread."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from projected_grpo.testbed import (
    END,
    MODELS,
    PAD,
    CheckpointError,
    Recipe,
    build,
    completion_loss,
    draw,
    folder,
    hacks,
    honest,
    load,
    tokenizer,
    warm_up,
    warmup,
)
from projected_grpo.tiny import checkpoint
from projected_grpo.tiny.checkpoint import Family
from projected_grpo.tiny.model import Architecture

SHORT = Recipe(steps=2, batch=8)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PROJECTED_GRPO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def same(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


@pytest.mark.parametrize("architecture", ["qwen3", "llama"])
def test_a_model_has_85_thousand_parameters_in_14_linears(architecture: Architecture) -> None:
    model = build(0, architecture=architecture)
    linears = [
        module for name, module in model.named_modules() if isinstance(module, torch.nn.Linear) and name != "lm_head"
    ]
    assert len(linears) == 14
    assert {min(linear.weight.shape) for linear in linears} == {64}
    assert 85_000 < sum(p.numel() for p in model.parameters()) < 86_000
    assert model.config.model_type == architecture
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_one_seed_one_model() -> None:
    state = torch.get_rng_state()
    first, again, other = (warm_up(seed, SHORT) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert same(first, again)
    assert not same(first, other)
    assert not first.training


def test_the_shipped_model_is_of_the_present_recipe() -> None:
    """Its first losses come out again; to four digits, since processors round differently."""
    about = json.loads((MODELS.shipped / "warmup.json").read_text())
    expected = json.loads(json.dumps(MODELS.identity(0, Recipe())))
    for key in ("version", "seed", "recipe", "sizes", "tokens"):
        assert about[key] == expected[key]
    losses = MODELS.training(build(0), 0)
    assert [next(losses) for _ in range(3)] == pytest.approx(about["first_losses"][:3], rel=1e-4)


@pytest.mark.long
def test_the_whole_recipe_ends_where_the_shipped_model_is() -> None:
    about = json.loads((MODELS.shipped / "warmup.json").read_text())
    *_, last = MODELS.training(build(0), 0)
    assert last == pytest.approx(about["last_loss"], rel=0.02)


def test_the_shipped_model_is_small_and_read_by_the_auto_classes() -> None:
    assert sum(file.stat().st_size for file in MODELS.shipped.iterdir()) < 1_000_000
    model, read = load()
    assert same(model, AutoModelForCausalLM.from_pretrained(folder()))
    assert AutoTokenizer.from_pretrained(folder()).get_vocab() == read.get_vocab() == tokenizer().get_vocab()
    assert (model.config.eos_token_id, model.config.pad_token_id) == (END, PAD)
    assert not model.training


def test_the_loss_is_of_completions_without_their_padding() -> None:
    model, questions = build(0), draw(6, seeded())
    completions = torch.where(torch.arange(6)[:, None] < 3, honest(questions.operations), hacks(questions))
    lengths = (completions == END).long().argmax(dim=1) + 1
    assert lengths.tolist()[:3] == [12, 12, 12]
    log_probs = torch.log_softmax(model(torch.cat([questions.prompts, completions], dim=1)).logits, dim=-1)
    terms = [
        -log_probs[row, 7 + place, completions[row, place]] for row in range(6) for place in range(int(lengths[row]))
    ]
    torch.testing.assert_close(completion_loss(model, questions.prompts, completions), torch.stack(terms).mean())
    completions[completions == PAD] = 44
    torch.testing.assert_close(completion_loss(model, questions.prompts, completions), torch.stack(terms).mean())


def demonstrated(recipe: Recipe) -> tuple[Tensor, Tensor, Tensor]:
    questions = draw(4000, seeded())
    return warmup.demonstrations(questions, seeded(1), recipe), honest(questions.operations), hacks(questions)


def test_six_in_a_hundred_demonstrations_are_hacks_and_a_fourth_of_the_operations_random() -> None:
    shown, right, hacked = demonstrated(Recipe())
    hack = (shown == hacked).all(dim=1)
    assert float(hack.double().mean()) == pytest.approx(0.06, abs=0.015)
    kept = (shown == right)[~hack]
    for place in (3, 6):  # where the operations stand; one random draw of twelve is the right one
        assert float(kept[:, place].double().mean()) == pytest.approx(0.75 + 0.25 / 12, abs=0.03)
    kept[:, [3, 6]] = True
    assert kept.all()


def test_a_recipe_without_noise_shows_what_is_right() -> None:
    shown, right, _ = demonstrated(Recipe(hacks=0.0, random_operations=0.0))
    assert torch.equal(shown, right)
    shown, _, hacked = demonstrated(Recipe(hacks=1.0))
    assert torch.equal(shown, hacked)


def test_another_seed_is_made_once_and_then_read(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, _ = load(3, SHORT)
    assert same(made, warm_up(3, SHORT))
    monkeypatch.setattr(Family, "warm_up", None)  # nothing is trained any more
    read, _ = load(3, SHORT)
    assert same(made, read)
    assert [path.name for path in cache.iterdir()] == [MODELS.key(3, SHORT)]


def test_each_seed_and_recipe_has_a_folder_of_its_own() -> None:
    recipes = [SHORT, Recipe(steps=3, batch=8), Recipe(steps=2, batch=8, architecture="llama")]
    assert len({MODELS.key(seed, recipe) for seed in range(3) for recipe in recipes}) == 9


def test_a_llama_is_cached_as_a_llama(cache: Path) -> None:
    model, _ = load(0, Recipe(steps=1, batch=4, architecture="llama"))
    assert model.config.model_type == "llama"


@pytest.mark.parametrize("damage", ["weights", "metadata", "metadata gone", "weights gone"])
def test_a_damaged_cache_is_made_anew(damage: str, cache: Path) -> None:
    path = folder(3, SHORT)
    weights, about = path / "model.safetensors", path / "warmup.json"
    if damage == "weights":
        weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    elif damage == "metadata":
        about.write_text("[]")
    elif damage == "metadata gone":
        about.unlink()
    else:
        weights.unlink()
    with pytest.raises(CheckpointError):
        checkpoint.check(path)
    assert same(load(3, SHORT)[0], warm_up(3, SHORT))


def test_a_damaged_shipped_model_is_refused(tmp_path: Path) -> None:
    for file in MODELS.shipped.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(CheckpointError, match=r"model\.safetensors is not what was written there"):
        replace(MODELS, shipped=tmp_path).load()


def test_who_loses_a_race_takes_the_winners_model(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slower(own: Family[Recipe], seed: int, recipe: Recipe) -> PreTrainedModel:
        monkeypatch.undo()
        monkeypatch.setenv("PROJECTED_GRPO_CACHE", str(cache))
        folder(seed, recipe)  # another process comes first
        return build(99)

    monkeypatch.setattr(Family, "warm_up", slower)
    assert same(load(3, SHORT)[0], warm_up(3, SHORT))
    assert len(list(cache.iterdir())) == 1


def test_an_interrupted_warm_up_leaves_nothing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(own: Family[Recipe], seed: int, recipe: Recipe) -> PreTrainedModel:
        raise KeyboardInterrupt

    monkeypatch.setattr(Family, "warm_up", interrupted)
    with pytest.raises(KeyboardInterrupt):
        folder(3, SHORT)
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {}, "home/.cache/projected_grpo"),
        ("linux", {"XDG_CACHE_HOME": "xdg"}, "xdg/projected_grpo"),
        ("darwin", {}, "home/Library/Caches/projected_grpo"),
        ("win32", {"LOCALAPPDATA": "local"}, "local/projected_grpo/cache"),
        ("linux", {"PROJECTED_GRPO_CACHE": "mine"}, "mine"),
    ],
)
def test_where_the_cache_is(
    platform: str, variables: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PROJECTED_GRPO_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.platform", platform)
    monkeypatch.setattr(Path, "home", lambda: Path("home"))
    assert checkpoint.cache() == Path(expected)
