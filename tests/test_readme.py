"""The README's examples, run from the built wheel in an empty environment outside the checkout."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from invariants import all_invariants
from projected_grpo.claims import Guarantee

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
EXAMPLES = {
    block.split("\n", 1)[0].removeprefix("# "): block
    for block in re.findall(r"```python\n(.*?)```", README, flags=re.S)
}
COMMANDS = re.findall(r"^    ((?:projected-grpo|python) .*)$", README, flags=re.M)


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """A virtual environment with the wheel installed; its dependencies are those of this environment."""
    home = tmp_path_factory.mktemp("elsewhere")
    source = home / "source"
    ignored = shutil.ignore_patterns(".venv", ".git", "build", "dist", "*_cache", ".hypothesis", "__pycache__")
    shutil.copytree(ROOT, source, ignore=ignored)
    run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", home, source], home)
    venv.create(home / "env", with_pip=False)
    python = home / "env" / "bin" / "python"
    (wheel,) = home.glob("*.whl")
    run([sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel], home)
    # A path line adds a folder without reading the .pth files in it, so an editable install there stays unseen.
    (site,) = (home / "env" / "lib").glob("python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    shutil.rmtree(source)
    for name, text in EXAMPLES.items():
        (home / name).write_text(text)
    return home


def run(command, cwd, **environment):
    inherited = {
        name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "COVERAGE_PROCESS_START")
    }
    finished = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, env={**inherited, "OMP_NUM_THREADS": "1", **environment}
    )
    assert finished.returncode == 0, f"{command}\n{finished.stdout}\n{finished.stderr}"
    return finished.stdout


def test_the_wheel_holds_the_four_packages_and_nothing_of_the_checkout(elsewhere):
    code = (
        "import invariants as i, projected_grpo as p, reference as r, regression as g; print(*map(str, (i, p, r, g)))"
    )
    files = re.findall(r"from '(.*?)'", run([elsewhere / "env" / "bin" / "python", "-c", code], elsewhere))
    assert len(files) == 4
    assert all(Path(file).is_relative_to(elsewhere / "env") for file in files)
    installed = {p.name for p in (elsewhere / "env").glob("lib/python*/site-packages/*") if p.is_dir()}
    assert {"projected_grpo", "invariants", "reference", "regression"} <= installed
    assert "tests" not in installed


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_of_the_readme_end_green(elsewhere, command):
    program, *arguments = shlex.split(command)
    out = run([elsewhere / "env" / "bin" / program, *arguments], elsewhere)
    assert out.strip()


def test_the_training_example_runs(elsewhere):
    out = run([elsewhere / "env" / "bin" / "python", "train.py"], elsewhere)
    shown = re.search(r"```text\n(step 0: .*?)```", README, flags=re.S)
    assert shown is not None
    words = re.compile(r"[-+]?\d*\.\d+")
    assert words.sub("#", out.strip()) == words.sub("#", shown[1].strip())


@pytest.mark.parametrize("file", ["test_my_loop.py", "test_my_sign.py"])
def test_the_pytest_examples_pass(elsewhere, file):
    python = elsewhere / "env" / "bin" / "python"
    out = run([python, "-m", "pytest", "-q", "-p", "no:cacheprovider", file], elsewhere)
    assert re.search(r"\d+ passed", out)


def test_every_kind_of_example_is_there():
    assert set(EXAMPLES) == {
        "my_router.py", "my_loop.py", "test_my_loop.py", "my_sign.py", "test_my_sign.py", "my_optimizer.py", "train.py",
    }  # fmt: skip
    assert len(COMMANDS) >= 3


def test_the_shown_table_lists_every_invariant_and_is_green():
    for known in all_invariants():
        row = re.search(rf"^{re.escape(known.id)} +holds .*$", README, flags=re.M)
        assert row is not None, known.id
        assert f" {known.theorem} " in row[0]
    assert f"{len(all_invariants())} checked invariants" in README
    assert f"total {len(all_invariants())}" in README


def test_the_shown_explanation_lists_every_guarantee():
    for guarantee in Guarantee.__args__:
        assert re.search(rf"^{guarantee} +(yes|no) ", README, flags=re.M), guarantee
