"""Why no script shows a violation of training.*, grading.* and logs.*: they are about whole programs."""

from invariants.registry import all_invariants
from invariants.repro.snippet import IMPOSSIBLE

WHOLE_PROGRAMS = {
    "train": "a run needs the trainer that made it; `projected-grpo verify --only ID` makes it again",
    "grade": "a verdict needs the grader that gave it; the failure shows the program that was graded",
    "logs": "a log needs the writer and the reader that it went through; the failure shows what came back",
}  # fmt: skip

IMPOSSIBLE.update({i.id: WHOLE_PROGRAMS[i.capability] for i in all_invariants() if i.capability in WHOLE_PROGRAMS})
