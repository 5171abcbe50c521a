"""Pictures of runs: every format, the same bytes twice, any file name, and the command."""

import json
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import matplotlib
import matplotlib.image
import numpy as np
import polars as pl
import pytest
from test_plots import a_run

from projected_grpo.cli.plot import plot
from projected_grpo.errors import UsageError
from projected_grpo.logs import LogWriter
from projected_grpo.results import LoggedRun
from projected_grpo.results import plots as package
from projected_grpo.results.plots import NothingToPlotError, PlotPathError, clip_thresholds, draw, series
from projected_grpo.results.plots.drawing import compose
from projected_grpo.results.plots.panels import band
from projected_grpo.results.plots.style import LOOKS, OF_MODES

KINDS = ("none", "erase", "route")


@pytest.fixture(scope="module")
def many() -> list[LoggedRun]:
    return [a_run(kind, seed, at=0.3 + 0.2 * seed) for kind in KINDS for seed in range(3)]


def texts(path: Path) -> list[str]:
    return [each.text or "" for each in ET.parse(path).iter("{http://www.w3.org/2000/svg}text")]


def test_svg_has_the_same_bytes_twice_whatever_the_users_style(tmp_path: Path, many: list[LoggedRun]) -> None:
    data = series(many)
    draw(data, tmp_path / "a.svg")
    with matplotlib.rc_context({"axes.facecolor": "black", "font.size": 20, "savefig.dpi": 30}):
        draw(series(many[::-1]), tmp_path / "b.svg")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.svg", "b.svg"], "nothing half written is left"


def test_png_is_a_picture_with_ink(tmp_path: Path, many: list[LoggedRun]) -> None:
    draw(series(many), tmp_path / "a.png")
    pixels = matplotlib.image.imread(tmp_path / "a.png")
    assert pixels.shape[1] == 1440
    assert np.unique((pixels[::3, ::3, :3] * 255).astype(int) @ [65536, 256, 1]).size > 50


def test_json_is_the_data(tmp_path: Path, many: list[LoggedRun]) -> None:
    data = series(many)
    draw(data, tmp_path / "a.json")
    assert json.loads((tmp_path / "a.json").read_text()) == json.loads(json.dumps(data.as_json()))


def test_titles_say_the_model_and_the_small_print_the_files(tmp_path: Path, many: list[LoggedRun]) -> None:
    draw(series(many), tmp_path / "a.svg")
    words = " ".join(texts(tmp_path / "a.svg"))
    for said in (
        "bold: as deployed; pale: as trained", "as trained, which is what is deployed",
        "Hack and solve, of the model as deployed", "hack as trained, in training rollouts", "share of completions",
        "optimizer step",
        "tiny-route-seed2/log.jsonl (seed 2, 4 steps)", "cos_pre_null", "before clipping", "limit of drift_ratio: 2",
    ):  # fmt: skip
        assert said in words


def test_bold_curves_are_the_means_and_thin_ones_the_seeds() -> None:
    data = series([a_run("route", seed, at=0.3 + 0.2 * seed) for seed in range(3)])
    axes = compose(data).axes[0]
    widest = max(axes.lines, key=lambda line: line.get_linewidth())
    assert list(widest.get_ydata()) in [
        list(curve.mean.values) for curve in data.arms[0].panels[0].curves if curve.primary
    ]
    assert len(axes.lines) == 2 * (3 + 1) + 2, "hack and solve: three seeds and a mean each, and two pale means"
    assert len(axes.collections) == 2, "a band each"


def test_one_seed_has_a_bold_curve_and_no_band() -> None:
    axes = compose(series([a_run("route")])).axes[0]
    assert len(axes.collections) == 0
    assert sum(line.get_linewidth() > 1.8 for line in axes.lines) == 2


def test_gaps_stay_gaps() -> None:
    mean = series([a_run("route")]).arms[0].panels[0].curves[1].mean
    assert np.isnan(band(mean)[0]).all()
    axes = compose(series([a_run("route")])).axes[0]
    assert any(np.isnan(np.asarray(line.get_ydata(), dtype=float)).sum() == 1 for line in axes.lines)


def test_a_point_with_a_gap_to_both_sides_is_a_dot() -> None:
    run = a_run("none", evaluations=pl.DataFrame({"step": [4]}))
    axes = compose(series([run])).axes[0]
    assert any(line.get_marker() == "o" and list(line.get_xdata()) == [4] for line in axes.lines)


@pytest.mark.parametrize(("threshold", "said"), [(3.5, False), (1000.0, True)])
def test_a_threshold_far_above_the_norms_is_said_and_does_not_flatten_them(threshold: float, said: bool) -> None:
    run = a_run("none")
    (axes,) = [
        axes for axes in compose(series([run], {run.source: threshold})).axes if axes.get_ylabel() == "norm"
    ]  # fmt: skip
    assert axes.get_ylim()[1] < 10
    assert any("above this panel" in text.get_text() for text in axes.texts) is said


def test_norms_of_many_sizes_are_drawn_on_a_logarithmic_axis() -> None:
    run = a_run()
    steps = run.steps.with_columns(pl.Series("grad_norm_pre_clip", [0.01, 1.0, 100.0, 10.0]))
    (axes,) = [each for each in compose(series([replace(run, steps=steps)])).axes if each.get_ylabel() == "norm"]
    assert axes.get_yscale() == "log"
    assert [label.get_text() for label in axes.get_yticklabels() if "$" in label.get_text()] == []


def test_looks_differ_in_more_than_colour() -> None:
    for one, other in (("hack", "solve"), ("cos_pre", "cos_pre_null"), ("grad_norm_pre_clip", "grad_norm_post_clip"),
                       ("drift_ratio", "drift_opposition")):  # fmt: skip
        assert LOOKS[one].dashes != LOOKS[other].dashes
    assert len({(look.dashes, look.marker) for look in OF_MODES}) == len(OF_MODES)


@pytest.mark.parametrize("count", [1, 2, 4, 7])
def test_any_number_of_arms_has_its_panels(count: int) -> None:
    runs = [a_run("route", basis=f"{n}", source=Path(f"{n}.jsonl")) for n in range(count)]
    figure = compose(series(runs))
    assert len(figure.axes) == 5 * count
    assert figure.get_figwidth() == (3.5 if count == 1 else 7.2)


@pytest.mark.parametrize("name", ["$x^$.jsonl", "a<b>&\x01.jsonl", "\u8a18\u9332.jsonl", "\udcff.jsonl", "_" * 300])
def test_any_file_name_can_be_written(tmp_path: Path, name: str) -> None:
    for suffix in (".svg", ".png", ".json"):
        draw(series([a_run(source=Path(name))]), tmp_path / f"a{suffix}")
    ET.parse(tmp_path / "a.svg")


def test_files_are_refused_before_anything_is_drawn(tmp_path: Path, many: list[LoggedRun]) -> None:
    data = series(many)
    with pytest.raises(
        PlotPathError, match=r"plot.pdf does not say its format; a plot's name ends in .svg, .png, .json"
    ):
        draw(data, tmp_path / "plot.pdf")
    with pytest.raises(PlotPathError, match="there is no directory"):
        draw(data, tmp_path / "nowhere" / "plot.svg")
    (tmp_path / "dir.svg").mkdir()
    with pytest.raises(PlotPathError, match="it is a directory"):
        draw(data, tmp_path / "dir.svg")


def a_log(folder: Path, *, done: int = 2, max_norm: float | None = 3.5) -> Path:
    """A log as the trainer writes it, of two steps; not ended if fewer were done."""
    config = {
        "preset": "tiny", "model": {"model": "testbed"}, "task": {"reward": "foolable"},
        "grpo": {"steps": 2, "group": 16, "max_norm": max_norm}, "basis": {"basis": "hack"},
        "routing": {"intervention": "route", "space": "displacement"}, "teacher": {"mix": 0.5}, "run": {"seed": 0},
        "evaluation": {"evaluate_every": 2},
    }  # fmt: skip
    with LogWriter(folder / "log.jsonl") as log:
        log.write("run", step=0, config=config, arm="route")
        for step in range(1, done + 1):
            log.write("step", step=step, hack_student=0.5, solve_student=0.25, grad_norm_pre_clip=2.0)
        if done == 2:
            log.write("evaluation", step=2, hack_trained=0.5, hack_deployed=0.125)
            log.write("final", step=2, report={})
    return folder / "log.jsonl"


def test_the_command_draws_files_and_names_what_it_leaves_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a_log(tmp_path / "whole")
    cut = a_log(tmp_path / "cut", done=1)
    svg, numbers = tmp_path / "p.svg", tmp_path / "p.json"
    assert plot((tmp_path,), out=(svg, numbers)) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == [f"{svg}: 1 run of 1 arm", f"{numbers}: 1 run of 1 arm"]
    assert err.startswith(f"projected-grpo: {cut} is left out: ")
    drawn = json.loads(numbers.read_text())
    assert [line["of"] for arm in drawn["arms"] for panel in arm["panels"] for line in panel["limits"]] == [
        "grad_norm_pre_clip"
    ]
    assert "whole/log.jsonl (seed 0, 2 steps)" in " ".join(texts(svg))


def test_the_command_refuses_what_cannot_be_drawn(tmp_path: Path) -> None:
    a_log(tmp_path, done=1)
    with pytest.raises(NothingToPlotError, match="no complete run"):
        plot((tmp_path,), out=(tmp_path / "p.svg",))
    with pytest.raises(UsageError, match="--out names no file"):
        plot((tmp_path,), out=())
    with pytest.raises(UsageError, match="needs a log"):
        plot((), out=(tmp_path / "p.svg",))
    with pytest.raises(PlotPathError):
        plot((tmp_path,), out=(tmp_path / "p.gif",))
    assert not list(tmp_path.glob("p.*"))


@pytest.mark.parametrize(("max_norm", "expected"), [(3.5, 3.5), (None, None), (0.0, None)])
def test_thresholds_are_those_of_the_configuration(
    tmp_path: Path, max_norm: float | None, expected: float | None
) -> None:
    source = a_log(tmp_path, max_norm=max_norm)
    assert clip_thresholds([a_run(source=source)]) == ({} if expected is None else {source: expected})
    assert clip_thresholds([a_run(source=tmp_path / "absent.log", format="v3")]) == {}


def test_everything_public_is_there() -> None:
    assert all(hasattr(package, name) for name in package.__all__)
