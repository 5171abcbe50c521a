"""The tape: it comes back bit for bit, or not at all and with a sentence that says why."""

import platform
import re
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from reference import ForeignTapeError, Tape, TapeError, TruncatedTapeError
from reference import tape as tapes

STEPS, R = 2, 3


def randn(*shape, seed):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


TAPE = Tape(
    gradients={"b": randn(STEPS, R, seed=1), "a": randn(STEPS, R, seed=0)},
    basis={"b": torch.zeros(0, R).double(), "a": torch.eye(R).double()[:2]},
    start={"b": torch.zeros(R).double(), "a": randn(R, seed=2)},
    header={"seed": 1},
)


@pytest.fixture
def path(tmp_path):
    TAPE.save(tmp_path / "tape.safetensors")
    return tmp_path / "tape.safetensors"


def same(a, b):
    """The same modules in the same order, and the same bits."""
    return all(
        list(getattr(a, part)) == list(getattr(b, part))
        and all(torch.equal(x, getattr(b, part)[name]) for name, x in getattr(a, part).items())
        for part in ("gradients", "basis", "start")
    )


def refused(path, error, sentence):
    """The whole message is pinned, but for what safetensors itself says."""
    with pytest.raises(error, match=f"^{re.escape(str(path))} {sentence}$"):
        tapes.load(path)
    return True


HEADER = '{"format": "gradient-tape", "version": 1, "modules": ["a"]}'
NOT_WHOLE = r"is not a whole safetensors file \(.+\); record the tape again\."
NO_TAPE = r"is no gradient-tape of version 1; record one with `python -m reference`\."
CHANGED = r"does not hold what its header's digest says; record the tape again\."


def test_a_saved_tape_comes_back_bit_for_bit(path):
    loaded = tapes.load(path)
    assert same(loaded, TAPE)
    assert loaded.digest() == TAPE.digest()
    assert loaded.header["seed"] == 1
    assert loaded.header["torch"] == torch.__version__
    assert loaded.header["python"] == platform.python_version()


def test_a_tape_is_read_step_by_step():
    assert TAPE.steps == STEPS
    steps = list(TAPE)
    assert len(steps) == STEPS
    for t, g in enumerate(steps):
        assert all(torch.equal(g[name], TAPE.gradients[name][t]) for name in "ab")


def test_a_changed_copy_of_a_loaded_tape_can_be_saved(path):
    """The digest in the file is the copy's own, not the one that was loaded."""
    copy = replace(tapes.load(path), start={"b": randn(R, seed=7), "a": randn(R, seed=8)})
    copy.save(path)
    assert same(tapes.load(path), copy)
    assert not same(copy, TAPE)


def changed(**parts):
    return replace(TAPE, **parts).digest()


def test_the_digest_sees_every_bit_name_type_and_shape():
    g = TAPE.gradients
    flipped = {"a": g["a"].clone(), "b": g["b"]}
    flipped["a"].view(torch.int64)[0, 0] ^= 1
    digests = [
        TAPE.digest(),
        changed(gradients=flipped),
        changed(gradients={"a": g["b"], "b": g["a"]}),
        changed(gradients={"a": g["a"], "c": g["b"]}),
        changed(gradients={"a": g["a"].view(torch.int64), "b": g["b"]}),
        changed(gradients={"a": g["a"].view(R, STEPS), "b": g["b"]}),
        changed(start=TAPE.gradients),
    ]
    assert len(set(digests)) == len(digests)
    assert changed(gradients={"b": g["b"], "a": g["a"].T.contiguous().T}, header={"seed": 2}) == TAPE.digest()


# Files that are no tape


@pytest.mark.parametrize(
    "content",
    [b"", b"just some text, and more of it", bytes(range(256)), b"\xff" * 64],
    ids=["empty", "text", "bytes", "ones"],
)
def test_a_file_of_another_kind_is_foreign(tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    assert refused(tmp_path / "file", ForeignTapeError, NOT_WHOLE)


@pytest.mark.parametrize(
    "metadata",
    [None, {"tape": "not JSON"}, {"tape": "[]"}, {"tape": "{}"}, {"tape": HEADER.replace("1", "2")}],
    ids=["no header", "not JSON", "a list", "empty", "another version"],
)
def test_a_safetensors_file_without_a_tapes_header_is_foreign(tmp_path, metadata):
    save_file({"gradients/a": torch.zeros(1, 2)}, tmp_path / "file", metadata=metadata)
    assert refused(tmp_path / "file", ForeignTapeError, NO_TAPE)


def test_a_tensor_that_no_tape_has_is_foreign(tmp_path):
    save_file({"weights/a": torch.zeros(1, 2)}, tmp_path / "file", metadata={"tape": HEADER})
    assert refused(tmp_path / "file", ForeignTapeError, "holds 'weights/a', which no gradient-tape of version 1 has.")


def test_a_tape_without_gradients_is_not_whole(tmp_path):
    replace(TAPE, gradients={}).save(tmp_path / "file")
    assert refused(tmp_path / "file", TruncatedTapeError, CHANGED)


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    for path in (tmp_path / "nothing", tmp_path):
        assert refused(path, FileNotFoundError, "is no file; record a tape with `python -m reference --record DIR`.")


# Damaged tapes


def test_a_tape_cut_off_anywhere_is_truncated(path):
    whole = path.read_bytes()
    for length in range(1, len(whole)):
        path.write_bytes(whole[:length])
        assert refused(path, TruncatedTapeError, NOT_WHOLE)


def test_a_changed_tensor_byte_is_noticed_wherever_it_is(path):
    whole = path.read_bytes()
    tensors = 8 + int.from_bytes(whole[:8], "little")
    for i in range(tensors, len(whole)):
        path.write_bytes(whole[:i] + bytes([whole[i] ^ 1]) + whole[i + 1 :])
        assert refused(path, TruncatedTapeError, CHANGED)


def test_no_changed_byte_is_taken_for_other_tensors(path):
    """In the header it may also change what is only noted there, such as a seed; nothing else escapes."""
    whole = path.read_bytes()
    refusals = 0
    for i in range(len(whole)):
        path.write_bytes(whole[:i] + bytes([whole[i] ^ 0x20]) + whole[i + 1 :])
        try:
            assert same(tapes.load(path), TAPE)
        except TapeError:
            refusals += 1
    assert refusals > len(whole) / 2


# Saving


def test_one_tape_is_one_file_bit_for_bit(tmp_path):
    for name, header in {"a": {"x": 1, "y": 2}, "b": {"y": 2, "x": 1}}.items():
        replace(TAPE, header=header).save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_name_of_a_module_may_hold_a_slash(tmp_path):
    turned = Tape(**{part: {"a/b": getattr(TAPE, part)["a"]} for part in ("gradients", "basis", "start")})
    turned.save(tmp_path / "tape")
    assert same(tapes.load(tmp_path / "tape"), turned)


def test_a_failed_save_leaves_the_folder_as_it_was(path, monkeypatch):
    before = path.read_bytes()

    def full_disk(tensors, file, metadata):
        file.write_bytes(b"half a tape")
        raise OSError("no space left on device")

    monkeypatch.setattr(tapes, "save_file", full_disk)
    for target in (path, path.with_name("other")):
        with pytest.raises(OSError, match="no space left"):
            replace(TAPE, header={"seed": 2}).save(target)
    assert list(path.parent.iterdir()) == [path]
    assert path.read_bytes() == before


def test_saving_makes_the_folder_and_replaces_the_file(tmp_path):
    path = tmp_path / "new" / "folder" / "tape"
    for seed in (1, 2):
        replace(TAPE, header={"seed": seed}).save(path)
    assert tapes.load(path).header["seed"] == 2
    assert list(path.parent.iterdir()) == [path]


def test_parts_that_are_not_contiguous_are_saved(tmp_path):
    turned = replace(TAPE, gradients={"b": randn(R, STEPS, seed=3).T, "a": randn(R, STEPS, seed=4).T})
    assert not turned.gradients["b"].is_contiguous()
    turned.save(tmp_path / "tape")
    assert same(tapes.load(tmp_path / "tape"), turned)


def test_what_a_loaded_tape_hands_out_is_aligned_like_any_new_tensor(tmp_path):
    """Products may round otherwise for tensors that start elsewhere than on a cache line, as in a mapped file."""
    draw = torch.Generator().manual_seed(0)
    gradients = {"m": torch.randn(3, 5, dtype=torch.float64, generator=draw)}
    recorded = Tape(gradients=gradients, basis={"m": torch.eye(5).double()[:1]}, start={"m": torch.zeros(5).double()})
    recorded.save(tmp_path / "tape")
    loaded = tapes.load(tmp_path / "tape")
    handed_out = [*(g["m"] for g in loaded), loaded.basis["m"], loaded.start["m"]]
    assert gradients["m"][1].data_ptr() % 64 != 0
    assert all(t.data_ptr() % 64 == 0 for t in handed_out)
