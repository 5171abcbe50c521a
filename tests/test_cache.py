"""The cache: what is kept comes back bit for bit, and never for another weight, however its files are damaged."""

import copy
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import get_peft_model
from torch import nn
from training_toys import same_bits, toy, trained

from projected_grpo import Basis, cache_in
from projected_grpo.adapter import SVDRoutingConfig, decompose, fingerprint
from projected_grpo.adapter.decomposition import decomposition_of
from projected_grpo.adapter.vectors import adapted_layers
from projected_grpo.cache import WEIGHTS_CACHE, cache_folder, kept
from projected_grpo.training import hack_basis
from projected_grpo.training.hack_basis import chosen_pairs, first_basis
from projected_grpo.training.setting import make_policy_and_task

KEY = "ab" * 32


def weight(seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(5, 3, generator=torch.Generator().manual_seed(seed)).to(dtype)


def taken(W: torch.Tensor, svd_dtype: str = "float64"):
    return decomposition_of(W, svd_dtype, fingerprint(W, svd_dtype))


def never(*_: object, **__: object) -> None:
    raise AssertionError("computed again")


@pytest.fixture
def folder(tmp_path: Path):
    with cache_in(tmp_path / "cache"):
        yield tmp_path / "cache"


def test_without_a_folder_nothing_is_kept(tmp_path, monkeypatch):
    monkeypatch.delenv(WEIGHTS_CACHE, raising=False)
    monkeypatch.chdir(tmp_path)
    assert cache_folder() is None
    assert same_bits(taken(weight())._asdict(), decompose(weight())._asdict())
    assert [*tmp_path.iterdir()] == []


def test_the_innermost_block_decides_and_then_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv(WEIGHTS_CACHE, "~/elsewhere")
    assert cache_folder() == Path.home() / "elsewhere"
    with cache_in(tmp_path), cache_in(tmp_path / "inner"):
        assert cache_folder() == tmp_path / "inner"
        with cache_in(None):
            assert cache_folder() is None
    assert cache_folder() == Path.home() / "elsewhere"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_a_decomposition_is_computed_once(folder, monkeypatch, dtype):
    first = taken(weight(dtype=dtype))
    monkeypatch.setattr(torch.linalg, "svd", never)
    again = taken(weight(dtype=dtype))
    assert same_bits(first._asdict(), again._asdict())
    assert {part.dtype for part in again} == {dtype}


@pytest.mark.parametrize(
    "other", [lambda: taken(weight(1)), lambda: taken(weight(), "float32"), lambda: taken(weight(dtype=torch.float64))]
)
def test_another_weight_dtype_or_precision_is_another_entry(folder, other):
    taken(weight())
    other()
    assert len([*folder.glob("svd-1/*")]) == 2


def test_a_model_that_is_adapted_again_has_the_same_basis(folder, monkeypatch):
    def adapted():
        torch.manual_seed(0)
        model = get_peft_model(nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 5)), SVDRoutingConfig(target_modules=".*"))
        return {name: value for name, value in model.named_buffers() if name.endswith((".U", ".Vh"))}

    first = adapted()
    monkeypatch.setattr(torch.linalg, "svd", never)
    assert len(first) == 4
    assert same_bits(first, adapted())


@pytest.fixture(scope="module")
def entry(tmp_path_factory) -> tuple[Path, bytes]:
    """A file of the cache, and what it holds."""
    folder = tmp_path_factory.mktemp("cache")
    with cache_in(folder):
        kept("some", KEY, lambda: {"a": torch.arange(4.0), "b": torch.zeros(0, 3)})
    (path,) = folder.glob("some/*")
    return path, path.read_bytes()


@given(data=st.data())
def test_a_damaged_file_is_told_of_computed_again_and_mended(entry, data):
    path, whole = entry
    at = data.draw(st.integers(0, len(whole) - 1))
    if data.draw(st.booleans(), label="cut off"):
        damaged = whole[:at]
    else:
        damaged = whole[:at] + bytes([whole[at] ^ data.draw(st.integers(1, 255))]) + whole[at + 1 :]
    path.write_bytes(damaged)
    true, calls = {"a": torch.arange(4.0), "b": torch.zeros(0, 3)}, []
    with warnings.catch_warnings(record=True) as told, cache_in(path.parent.parent):
        warnings.simplefilter("always")
        found = kept("some", KEY, lambda: calls.append(1) or true)
    assert same_bits(found, true)
    assert len(told) == len(calls)  # a byte that means nothing, as a space in the header, changes nothing
    assert all("is computed again" in str(each.message) for each in told)
    assert path.read_bytes() in ((whole,) if calls else (damaged,))


def test_most_damage_is_seen(entry):
    path, whole = entry
    seen = 0
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :])
        with warnings.catch_warnings(record=True) as told, cache_in(path.parent.parent):
            warnings.simplefilter("always")
            kept("some", KEY, lambda: {"a": torch.arange(4.0), "b": torch.zeros(0, 3)})
        seen += len(told)
    assert seen > 0.9 * len(whole)


def test_a_file_under_anothers_name_is_not_taken_for_it(folder):
    one, other = weight(0), weight(1)
    taken(one)
    (path,) = folder.glob("svd-1/*")
    with cache_in(folder.parent / "another"):
        taken(other)
        (name,) = (folder.parent / "another").glob("svd-1/*")
    path.rename(path.with_name(name.name))
    with pytest.warns(RuntimeWarning, match="does not hold what it says; it is computed again"):
        found = taken(other)
    assert same_bits(found._asdict(), decompose(other)._asdict())


def test_where_nothing_can_be_written_the_work_is_not_lost(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with cache_in(tmp_path / "file"), pytest.warns(RuntimeWarning, match="nothing is kept there for the next time"):
        found = taken(weight())
    assert same_bits(found._asdict(), decompose(weight())._asdict())
    assert (tmp_path / "file").read_text() == "in the way"


def changed_weight(policy, pairs, config):
    policy.model.get_input_embeddings().weight[0, 0] += 1


def changed_bias(policy, pairs, config):
    next(iter(adapted_layers(policy.model).values())).base_layer.bias[0] += 1


def changed_architecture(policy, pairs, config):
    policy.model.get_base_model().config.rms_norm_eps = 0.5


def changed_vector(policy, pairs, config):
    next(iter(policy.vectors.values())).deployed[0] += 1


def changed_coordinates(policy, pairs, config):
    layer = next(iter(adapted_layers(policy.model).values()))
    layer.U, layer.Vh = -layer.U, -layer.Vh


def changed_end(policy, pairs, config):
    policy.end_ids = (*policy.end_ids, 7)


def changed_pairs(policy, pairs, config):
    return pairs[1:], config


def changed_k(policy, pairs, config):
    return pairs, replace(config, k=config.k + 1)


def changed_floor(policy, pairs, config):
    return pairs, replace(config, relative_floor=0.5)


def changed_floor_of_all(policy, pairs, config):
    return pairs, replace(config, global_floor=0.5)


@pytest.fixture(scope="module")
def fresh():
    """The testbed's model, a bias in one adapted layer, its pairs and its settings."""
    config = toy(basis={"pairs": 6, "k": 2, "held_out": 0.0})
    policy, task = make_policy_and_task(config)
    task.close()
    layer = next(iter(adapted_layers(policy.model).values())).base_layer
    layer.bias = nn.Parameter(torch.zeros(layer.out_features), requires_grad=False)
    return policy, chosen_pairs(task, config.basis, seed=0)[0], config.basis


@pytest.mark.parametrize(
    "change",
    [
        changed_weight, changed_bias, changed_architecture, changed_vector, changed_coordinates, changed_end,
        changed_pairs, changed_k, changed_floor, changed_floor_of_all,
    ],
)  # fmt: skip
@torch.no_grad()
def test_whatever_decides_a_basis_makes_another_entry(folder, fresh, change):
    policy, pairs, config = copy.deepcopy(fresh)
    first = first_basis(policy, pairs, (), config, seed=0).basis
    assert first_basis(policy, pairs, (), config, seed=0).basis == first
    assert len([*folder.glob("basis-1/*")]) == 1
    pairs, config = change(policy, pairs, config) or (pairs, config)
    now = first_basis(policy, pairs, (), config, seed=0).basis
    assert len([*folder.glob("basis-1/*")]) == 2
    with cache_in(None):
        assert now == first_basis(policy, pairs, (), config, seed=0).basis


def test_other_versions_of_the_code_make_another_entry(folder, fresh, monkeypatch):
    policy, pairs, config = fresh
    first_basis(policy, pairs, (), config, seed=0)
    monkeypatch.setattr(hack_basis, "versions", lambda: {"torch": "another"})
    first_basis(policy, pairs, (), config, seed=0)
    assert len([*folder.glob("basis-1/*")]) == 2


def test_what_was_read_is_no_view_of_the_file(folder):
    taken(weight())
    found = taken(weight())
    (path,) = folder.glob("svd-1/*")
    path.write_bytes(b"\0" * path.stat().st_size)
    assert same_bits(found._asdict(), decompose(weight())._asdict())


def test_a_folder_that_cannot_be_looked_at_is_told_of():
    with cache_in("x" * 300), pytest.warns(RuntimeWarning, match="it is computed again|nothing is kept"):
        assert same_bits(taken(weight())._asdict(), decompose(weight())._asdict())


@pytest.mark.parametrize("kind", ["hack", "random"])
def test_a_basis_from_the_cache_has_its_modules_in_the_same_order_and_so_the_same_controls(folder, fresh, kind):
    policy, pairs, config = fresh
    config = replace(config, basis=kind)
    cold, warm = (first_basis(policy, pairs, (), config, seed=0).basis for _ in range(2))
    assert [*cold] == [*warm] == [*policy.vectors]
    assert cold == warm


def test_another_number_of_threads_is_another_entry(folder):
    taken(weight())
    torch.set_num_threads(2)
    try:
        taken(weight())
    finally:
        torch.set_num_threads(1)
    assert len([*folder.glob("svd-1/*")]) == 2


def test_a_run_begins_with_the_basis_that_was_kept_and_ends_in_the_same_bits(folder, tmp_path, monkeypatch):
    without = trained(toy(tmp_path / "a", basis={"refresh_every": 0}))
    extracted = Basis.load(tmp_path / "a" / "basis.safetensors")
    (path,) = folder.glob("basis-1/*")
    monkeypatch.setattr(hack_basis, "extract_basis", never)
    assert same_bits(trained(toy(tmp_path / "b", basis={"refresh_every": 0})), without)
    assert Basis.load(tmp_path / "b" / "basis.safetensors") == extracted
    assert [*folder.glob("basis-1/*")] == [path]
