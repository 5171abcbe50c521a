"""The benchmark: whose shapes, what a report holds, how two are compared, and that every part is measured or told."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import GPT2Config, Qwen3Config

from projected_grpo.bench import extraction, generation, growth, models, run
from projected_grpo.bench.machine import Machine, load, usable
from projected_grpo.bench.plot import format_of, plot
from projected_grpo.bench.render import duration, markdown
from projected_grpo.bench.report import Report, Row, changes, read, rows_of, slower
from projected_grpo.bench.run import GROUPS, ON_CUDA_ALONE, WHEN_ASKED, Options, measure
from projected_grpo.bench.shapes import PRESETS, of_folder, preset
from projected_grpo.bench.timing import Timed, Timing, interleaved
from projected_grpo.cli import main
from projected_grpo.errors import SettingError

LEAST = Options(axes=(2,), tokens=8, batch=2, budget=0.0)
CPU = torch.device("cpu")
TIMED = Timed({"loop": [2.0, 4.0, 6.0, 2.0], "grouped": [1.0, 1.0, 3.0, 1.0]})
MACHINE = Machine(
    device="cpu", processor="a processor", cores=2, threads=1, load=0.5, python="3", torch="2", bandwidth=1e9, flops=1e9
)  # fmt: skip


@pytest.fixture
def known_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose speed need not be measured; and as few tokens and pairs as will do."""
    monkeypatch.setattr(run, "look", lambda *_: MACHINE)
    for module, name in ((generation, "PROMPT"), (generation, "NEW"), (extraction, "PAIRS")):
        monkeypatch.setattr(module, name, 1)


def report(*rows: Row) -> Report:
    settings = {"modules": 14, "entries": 896, "dtype": "torch.float32"}
    return Report(machine=MACHINE, shape="tiny", settings=settings, rows=list(rows), left_out=["graph: no."])


ROWS = rows_of(TIMED, group="split", settings={"k": 5}, baseline="loop", bounds={"grouped": 0.25})


def test_the_presets_are_the_published_shapes() -> None:
    lengths = {name: [module.r for module in shape.modules()] for name, shape in PRESETS.items()}
    counted = {name: (len(r), sum(r)) for name, r in lengths.items()}
    assert counted == {
        "tiny": (14, 896), "Qwen3-0.6B": (196, 200_704), "Qwen3-4B": (252, 534_528), "Qwen3-8B": (252, 811_008),
        "Qwen3-32B": (448, 1_769_472), "Llama-3-8B": (224, 720_896),
    }  # fmt: skip
    assert sorted(set(lengths["Qwen3-4B"])) == [1024, 2560]
    assert lengths["Qwen3-4B"].count(2560) == 180
    assert all(shape.source for shape in PRESETS.values())
    with pytest.raises(SettingError, match=r"no preset 'Qwen4'; choose one of tiny, Qwen3-0\.6B"):
        preset("Qwen4")


def test_a_folder_has_the_shapes_of_its_own_code(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"holds no config\.json"):
        of_folder(tmp_path)
    Qwen3Config(
        hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1,
        head_dim=4, vocab_size=9,
    ).save_pretrained(tmp_path)  # fmt: skip
    shape, modules = of_folder(tmp_path)
    assert [tuple(m) for m in modules] == [tuple(m) for m in shape.modules()]
    assert modules[3] == ("model.layers.0.self_attn.o_proj", 8, 16)
    assert modules[3].r == 8
    (tmp_path / "config.json").write_text('{"model_type": "nosuch"}')
    with pytest.raises(SettingError, match="cannot be built: "):
        of_folder(tmp_path)
    GPT2Config(n_layer=1, n_embd=8, n_head=1, vocab_size=9).save_pretrained(tmp_path)  # it has Conv1D and no Linear
    with pytest.raises(SettingError, match="has no Linear to adapt"):
        of_folder(tmp_path)


def test_a_ratio_is_the_median_of_the_ratios_of_each_round() -> None:
    assert TIMED.timing("loop") == Timing(3.0, 2.0, 4.5, 2.0, 4)
    assert TIMED.ratio("grouped", "loop") == 0.5  # of 0.5, 0.25, 0.5, 0.5; the medians' would be a third
    loop, grouped = ROWS
    assert (loop.ratio, loop.baseline, loop.by_bound) == (None, None, None)
    assert (grouped.ratio, grouped.baseline, grouped.by_bound) == (0.5, "loop", 4.0)


def test_jobs_are_run_in_turn_and_another_begins_each_round() -> None:
    ran: list[str] = []
    jobs = {name: (lambda name=name: ran.append(name)) for name in "abc"}
    timed = interleaved(jobs, device=CPU, budget=0.0)
    assert "".join(ran) == "aabbcc" + "abc" + "bca" + "cab" + "abc" + "bca"
    assert {len(seconds) for seconds in timed.seconds.values()} == {5}


def test_a_report_is_read_as_it_was_written_and_compared_by_ratios(tmp_path: Path) -> None:
    numbers = Row(group="memory", name="a step", numbers={"bytes": 3.0})
    old = report(*ROWS, numbers)
    path = tmp_path / "old.json"
    path.write_text(old.as_json())
    assert read(path) == old
    twice = replace(ROWS[1], ratio=1.0), replace(ROWS[0], time=replace(ROWS[0].time, median=9.0))
    found = changes(old, report(*twice, numbers, replace(ROWS[1], settings={"k": 12})))
    assert [(change.factor, change.by_ratio) for change in found] == [(2.0, True), (3.0, False)]
    assert [change.row.name for change in slower(found, 1.5)] == ["grouped"]
    assert not slower(found, 2.5)
    for text, said in (("{}", "is no report"), ("[]", "is no report"), ('{"schema": 2}', "another schema version")):
        path.write_text(text)
        with pytest.raises(SettingError, match=said):
            read(path)


@pytest.mark.usefixtures("known_machine")
def test_every_part_is_measured_or_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(setting: object) -> list[Row]:
        raise MemoryError("out of memory\nmore")

    monkeypatch.setitem(GROUPS, "memory", failing)
    shape = preset("tiny")
    told: list[str] = []
    found = measure(
        shape, shape.modules(), device=CPU, dtype=torch.float32, options=LEAST, progress=told.append
    )  # fmt: skip
    measured = [name for name in GROUPS if name not in (*ON_CUDA_ALONE, *WHEN_ASKED, "memory")]
    assert list(dict.fromkeys(row.group for row in found.rows)) == measured
    assert told == ["the machine", *[name for name in GROUPS if name not in (*ON_CUDA_ALONE, *WHEN_ASKED)]]
    assert found.left_out == [
        "memory: not measured, for it failed with MemoryError: out of memory",
        "kernels: not measured, for it is about a CUDA device and this is cpu.",
        "graph: not measured, for it is about a CUDA device and this is cpu.",
    ]
    assert all(row.time.median > 0 for row in found.rows if row.time)
    of = {(row.group, row.name): row for row in found.rows}
    assert of["step", "routed in update space"].baseline == "unrouted, AdamW as built"
    assert of["sources", "two backward passes"].ratio > 0
    assert of["adapter", "base model, forward"].bound > 0
    text = markdown(found)
    assert all(f"### {name}" in text for name in measured)
    assert "memory: not measured" in text


@pytest.mark.usefixtures("known_machine")
def test_memory_is_what_the_shapes_say() -> None:
    shape = preset("tiny")
    found = measure(
        shape, shape.modules(), device=CPU, dtype=torch.float64, options=LEAST, only=["memory"]
    )  # fmt: skip
    by_space = {row.name: row.numbers for row in found.rows}
    one_set = 896 * 8
    assert {numbers["vectors, bytes"] for numbers in by_space.values()} == {2 * one_set}
    assert {numbers["basis, bytes"] for numbers in by_space.values()} == {2 * one_set}
    assert by_space["routed in gradient space"]["kept by routing, bytes"] == one_set
    assert by_space["routed in displacement space"]["kept by routing, bytes"] == 4 * one_set
    assert found.settings["vectors"] == "torch.float64"


@pytest.mark.usefixtures("known_machine")
def test_a_wide_model_has_random_factors_and_a_narrow_one_stands_in(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = preset("tiny")
    monkeypatch.setattr(models, "LARGEST_DECOMPOSED", 16)
    found = measure(
        shape, shape.modules(), device=CPU, dtype=torch.bfloat16, options=LEAST, only=["sources"]
    )  # fmt: skip
    assert len(found.rows) == 3
    monkeypatch.setattr(models, "NARROW", shape)
    monkeypatch.setattr(run, "NARROW", shape)
    large = preset("Qwen3-32B")
    found = measure(
        large, large.modules(), device=CPU, dtype=torch.float32, options=LEAST, only=["generation"]
    )  # fmt: skip
    assert "generation, extraction, grpo: run on a narrow model (hidden 64, 2 layers)" in found.left_out[0]


@pytest.mark.parametrize(
    ("options", "only", "said"),
    [(LEAST, ["nosuch"], "no group 'nosuch'"), (replace(LEAST, batch=3), [], "cannot share 8 tokens"),
     (replace(LEAST, batch=1), [], "cannot share"),
     (replace(LEAST, axes=(5, 5)), [], "k is 5, 5; it must be different numbers, each from 1 to 64"),
     (replace(LEAST, axes=(5, 65)), [], "k is 5, 65; it must be different numbers, each from 1 to 64")],
)  # fmt: skip
def test_what_means_nothing_is_refused(options: Options, only: list[str], said: str) -> None:
    shape = preset("tiny")
    with pytest.raises(SettingError, match=said):
        measure(shape, shape.modules(), device=CPU, dtype=torch.float32, options=options, only=only)
    with pytest.raises(SettingError, match="--device 'nosuch' is not to be had here"):
        usable("nosuch")


@pytest.mark.usefixtures("known_machine")
def test_growth_is_drawn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("MODULES", "LENGTHS", "AXES"):
        monkeypatch.setattr(growth, name, (2, 4))
    monkeypatch.setattr(growth, "MIDDLE", (4, 8, 2))
    shape = preset("tiny")
    found = measure(shape, shape.modules(), device=CPU, dtype=torch.float32, options=LEAST, only=["growth"])
    assert {row.settings["varied"] for row in found.rows} == {"modules", "r", "k"}
    assert len(found.rows) == 6 * 4
    plot(found, tmp_path / "growth.svg")
    drawn = (tmp_path / "growth.svg").read_text()
    assert all(words in drawn for words in ("memory bound", "axes k of a module", "loop over modules, statistics"))
    with pytest.raises(SettingError, match=r"name it \.svg or \.png"):
        format_of(tmp_path / "growth.pdf")


def test_the_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = ["bench", "--preset", "tiny", "--quick", "--k", "2", "--only", "split"]
    files = [str(tmp_path / name) for name in ("bench.json", "bench.md")]
    assert main([*words, "--json", "--report", *files]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((tmp_path / "bench.json").read_text())
    assert [row["settings"] for row in printed["rows"]] == 4 * [{"modules": 14, "k": 2}]
    assert "| grouped | k=2, modules=14 |" in (tmp_path / "bench.md").read_text()

    printed["rows"] = [{**row, "ratio": row["ratio"] and row["ratio"] / 1e6} for row in printed["rows"]]
    (tmp_path / "bench.json").write_text(json.dumps(printed))
    assert main([*words, "--compare", files[0], "--fail-over", "100"]) == 1
    said = capsys.readouterr()
    assert "split, grouped (k=2, modules=14)" in said.err
    assert "tiny: 14 modules, 896 entries" in said.out
    assert main([*words, "--compare", files[0]]) == 0
    capsys.readouterr()
    assert main([*words, "--json", "--compare", files[0]]) == 0
    assert "times what it was beside its baseline" in capsys.readouterr().err

    others = ["bench", "--preset", "tiny", "--quick", "--k", "3", "--only", "split", "--compare", files[0]]
    assert main(others) == 0
    assert f"4 timed rows of this run are not in {files[0]}" in capsys.readouterr().err
    assert main([*others, "--fail-over", "100"]) == 1
    assert "no row could be compared beside its baseline, so nothing was held" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--k", "0"], "--k is the numbers of axes"), (["--tokens", "0"], "--tokens is 0"),
        (["--report"], "--report names no file"), (["--report", "bench.txt"], "says no format; name it .json or .md"),
        (["--report", "nosuch/bench.json"], "is no folder; make it first"),
        (["--plot", "nosuch/cost.svg"], "is no folder; make it first"),
        (["--fail-over", "2"], "--fail-over needs --compare"), (["--plot", "x.pdf"], "name it .svg or .png"),
        (["--compare", "nosuch.json"], "nosuch.json cannot be read (No such file"),
        (["--device", "nosuch"], "is not to be had here"),
        (["--only", "split", "--batch", "3"], "cannot share"), (["--model", "x"], "--preset and --model both say"),
        (["--only", "kernels", "graph"], "kernels and graph is about a CUDA device"),
        (["--only", "split", "--only", "step"], "--only is given twice; give it once"),
    ],
)  # fmt: skip
def test_bad_input_ends_in_a_sentence(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--preset", "tiny", *words]) == 2
    assert said in capsys.readouterr().err


def test_a_folder_that_is_no_model(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["bench", "--model", str(tmp_path)]) == 2
    assert "holds no config.json" in capsys.readouterr().err
    (tmp_path / "config.json").write_text('{"model_type": "llama", "hidden_size": "x"}')
    assert main(["bench", "--model", str(tmp_path)]) == 2
    assert "cannot be built" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--preset", "Qwen3-0.6B"], "14 modules (here 196), 896 entries in each set of vectors (here 200704)"),
        (["--preset", "tiny", "--dtype", "float64"], "torch.float32 as the dtype (here torch.float64)"),
        (["--preset", "tiny", "--threads", "2"], "1 threads (here 2)"),
    ],
)
def test_other_work_is_not_compared(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    old = tmp_path / "old.json"
    assert main(["bench", "--preset", "tiny", "--quick", "--only", "memory", "--report", str(old)]) == 0
    capsys.readouterr()
    assert main(["bench", *words, "--quick", "--only", "memory", "--compare", str(old)]) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert f"was measured with {said}; compare what was measured alike." in told


def test_a_factor_that_means_nothing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "old.json").write_text(report(*ROWS).as_json())
    assert main(["bench", "--compare", str(tmp_path / "old.json"), "--fail-over", "-1"]) == 2
    assert "it must be above 0" in capsys.readouterr().err


@pytest.mark.usefixtures("known_machine")
def test_a_report_with_other_loops_is_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    words = ["bench", "--preset", "tiny", "--quick", "--only", "split", "--k", "2", "--compare", str(path)]
    for loops, said in (("numba 1, auto", f"compiled loops: numba 1, auto in {path}, none in this run."), (None, "")):
        path.write_text(replace(report(*ROWS), machine=replace(MACHINE, loops=loops)).as_json())
        assert main(words) == 0
        told = capsys.readouterr()
        assert said in told.err
        assert ("compiled loops" in told.err) == bool(said)
        assert "compiled loops: none" in told.out.replace("\n", " ")


@pytest.mark.parametrize("command", ["verify", "optimizers", "bench", "train"])
def test_a_variable_that_says_nothing_known_ends_every_command(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PROJECTED_GRPO_KERNELS", "fast")
    assert main([command]) == 2
    assert "PROJECTED_GRPO_KERNELS is 'fast'; it must be one of auto, on, off." in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_units_and_a_load_that_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [duration(seconds) for seconds in (2.5, 2.5e-3, 2.5e-6)] == ["2.5 s", "2.5 ms", "2.5 µs"]
    assert [duration(seconds) for seconds in (0.9996, 0.9994, 0.9996e-3)] == ["1 s", "999 ms", "1 ms"]
    monkeypatch.delattr("os.getloadavg")
    assert load() is None
