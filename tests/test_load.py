import pytest

from invariants import Subject, SubjectImportError, load_subject

MODULE = """
from invariants import Subject
subject = Subject(name="found")
def make():
    return Subject(name="made")
def raises():
    raise RuntimeError("boom")
def leaves():
    raise SystemExit(0)
number = 3
class Nested:
    subject = Subject(name="nested")
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "their_subject.py").write_text(MODULE)
    (tmp_path / "their_broken_module.py").write_text("import no_such_thing\n")
    (tmp_path / "their_script.py").write_text("import sys\nsys.exit(0)\n")
    (tmp_path / "their_syntax_error.py").write_text("def (:\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.parametrize(
    ("spec", "name"),
    [("their_subject:subject", "found"), ("their_subject:make", "made"), ("their_subject:Nested.subject", "nested")],
)
@pytest.mark.usefixtures("module")
def test_a_subject_is_found_by_name(spec, name):
    assert load_subject(spec) == Subject(name=name)


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("their_subject", "not of the form module:object"),
        (":subject", "not of the form module:object"),
        ("no_such_module:subject", "does not import: ModuleNotFoundError"),
        ("their_broken_module:subject", "does not import: ModuleNotFoundError: No module named 'no_such_thing'"),
        ("their_script:subject", "ended the interpreter while it was imported"),
        ("their_subject:leaves", "raised SystemExit: 0"),
        ("their_syntax_error:subject", "does not import: SyntaxError"),
        ("their_subject:absent", "has no 'absent'"),
        ("their_subject:number", "is a int, not an invariants.Subject"),
        ("their_subject:raises", "raised RuntimeError: boom"),
    ],
)
@pytest.mark.usefixtures("module")
def test_a_subject_that_cannot_be_had_is_one_sentence(spec, sentence):
    with pytest.raises(SubjectImportError) as caught:
        load_subject(spec)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
