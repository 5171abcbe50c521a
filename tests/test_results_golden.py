"""What tables and plots of the archived runs hold, figure by figure; `pytest --snapshot-update` writes them anew."""

import json
from pathlib import Path

import pytest
from test_log_golden import Golden

import regression
from projected_grpo.results.plots.series import series
from projected_grpo.results.reading import read_runs
from projected_grpo.results.rendering import rendered
from projected_grpo.results.tables import results_of

ARCHIVE = Path(regression.__file__).parent / "archived"


@pytest.fixture(scope="module")
def runs():
    return read_runs([ARCHIVE])


@pytest.fixture
def golden(snapshot):
    return snapshot.use_extension(Golden)


@pytest.mark.parametrize("form", ["markdown", "csv", "json"])
def test_tables_are_as_they_were(runs, golden, form):
    assert rendered(results_of(runs), form).replace(str(ARCHIVE), "ARCHIVE") + "\n" == golden


def test_plots_draw_what_they_drew(runs, golden):
    text = json.dumps(series(runs).as_json(), indent=1, sort_keys=True)
    assert text.replace(str(ARCHIVE), "ARCHIVE") + "\n" == golden
