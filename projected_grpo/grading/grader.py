"""The grader: hands submissions to workers, keeps the order, remembers, and restarts what dies."""

import select
import time
import weakref
from collections import OrderedDict, deque
from collections.abc import Sequence
from types import TracebackType

from projected_grpo.environment.problem import Case
from projected_grpo.errors import SettingError
from projected_grpo.grading.errors import NoCasesError
from projected_grpo.grading.jobs import Job, batches, may_be_harmless
from projected_grpo.grading.limits import Limits
from projected_grpo.grading.values import fingerprint
from projected_grpo.grading.verdict import Submission, Verdict
from projected_grpo.grading.worker import SECONDS_OF_GRACE, Worker

REMEMBERED = 1 << 16
TRIES = 3  # workers that may die over one submission, before it is graded "died"

Key = tuple[str, str, str, str]


class Grader:
    """Grades programs of unknown intent, in worker processes that are isolated from everything else.

    Workers are started when they are first needed. Verdicts are remembered by program, setup, cases and mode.

        with Grader(workers=2) as grader:
            verdicts = grader.grade([Submission(program, problem.cases, Mode.NONE, problem.setup)])

    Args:
        workers: How many submissions are run at a time.
        limits: What each of them may use.
        unsafe: Do without namespaces. Limits and the filter of system calls stay, but programs can read what the user
            can read, write what the user can write, and outlive their grading.
        remembered: How many verdicts are kept.

    Raises (at the first use):
        IsolationUnavailableError: This system has no namespaces for us, and `unsafe` is False.
    """

    def __init__(
        self, workers: int = 2, limits: Limits | None = None, unsafe: bool = False, *, remembered: int = REMEMBERED
    ) -> None:
        if workers < 1 or remembered < 0:
            raise SettingError(f"workers is {workers}, remembered is {remembered}: give at least 1, and at least 0")
        self.limits = limits or Limits()
        self.unsafe = unsafe
        self._size = workers
        self._workers: list[Worker] = []
        self._finalizer = weakref.finalize(self, _close_all, self._workers)
        self._verdicts: OrderedDict[Key, Verdict] = OrderedDict()
        self._remembered = remembered
        self._fingerprints: dict[int, tuple[tuple[Case, ...], str]] = {}

    def __enter__(self) -> "Grader":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End every worker and what it runs. The grader can be used again: it starts new ones."""
        _close_all(self._workers)

    def grade(self, submissions: Sequence[Submission]) -> list[Verdict]:
        """The verdicts, in the order of the submissions; equal ones are run once.

        Raises:
            NoCasesError: A submission has no case.
            ExpectedValueError: An expected value is not of the plain types.
            IsolationUnavailableError: See the class.
            WorkerError: Workers can't be started.
        """
        keys = [self._key(submission) for submission in submissions]
        verdicts: dict[Key, Verdict] = {}
        unknown: dict[Key, Submission] = {}
        for key, submission in zip(keys, submissions, strict=True):
            if key in self._verdicts:
                self._verdicts.move_to_end(key)
                verdicts[key] = self._verdicts[key]
            else:
                unknown[key] = submission
        if unknown:
            fresh = self._run(list(unknown.values()))
            for key, (verdict, lasting) in zip(unknown, fresh, strict=True):
                verdicts[key] = verdict
                if lasting:
                    self._verdicts[key] = verdict
        while len(self._verdicts) > self._remembered:
            self._verdicts.popitem(last=False)
        return [verdicts[key] for key in keys]

    def _key(self, submission: Submission) -> Key:
        cases = submission.cases
        known = self._fingerprints.get(id(cases))
        if known is None:
            if not cases:
                raise NoCasesError("A submission has no cases, so every program would solve it: give at least one.")
            text = fingerprint([[case.call, case.expected] for case in cases])
            if len(self._fingerprints) >= self._remembered:
                self._fingerprints.clear()
            known = self._fingerprints[id(cases)] = cases, text  # holds the cases, so that their id stays theirs
        return submission.program, submission.setup, known[1], submission.mode.value

    def _run(self, submissions: list[Submission]) -> list[tuple[Verdict, bool]]:
        """Each verdict, and whether it will be the same the next time."""
        try:
            return _Run(submissions, self).verdicts()
        except BaseException:  # Ctrl-C too: what was being run must not go on
            self.close()
            raise

    def _worker(self) -> Worker:
        worker = Worker(self.limits, self.unsafe)
        self._workers.append(worker)
        return worker


class _Run:
    """One call of `grade`: a queue of jobs, and which worker does which."""

    def __init__(self, submissions: list[Submission], grader: Grader) -> None:
        self._submissions = submissions
        self._grader = grader
        self._limits = grader.limits
        self._done: list[tuple[Verdict, bool] | None] = [None] * len(submissions)
        self._tries = [0] * len(submissions)
        small = [index for index, submission in enumerate(submissions) if may_be_harmless(submission)]
        rest = sorted(set(range(len(submissions))).difference(small))
        self._queue: deque[Job] = deque(batches(submissions, small, grader._size))
        self._queue.extend(Job([index], alone=True) for index in rest)
        self._busy: dict[int, tuple[Worker, Job, float]] = {}

    def verdicts(self) -> list[tuple[Verdict, bool]]:
        while self._queue or self._busy:
            self._hand_out()
            self._collect()
        return [done for done in self._done if done is not None]

    def _hand_out(self) -> None:
        idle = [worker for worker in self._grader._workers if worker.fileno() not in self._busy]
        while self._queue and len(self._busy) < self._grader._size:
            worker = idle.pop() if idle else self._grader._worker()
            job = self._queue.popleft()
            try:
                job.start(worker, self._submissions, self._limits)
            except OSError:  # it died while it was idle: no fault of the job's
                self._retire(worker)
                self._retry(job)
                continue
            deadline = time.monotonic() + self._limits.wall_seconds + SECONDS_OF_GRACE
            self._busy[worker.fileno()] = worker, job, deadline

    def _collect(self) -> None:
        poll = select.poll()
        for number in self._busy:
            poll.register(number, select.POLLIN)
        soonest = min(deadline for _, _, deadline in self._busy.values())
        ready = {number for number, _ in poll.poll(max(0.0, soonest - time.monotonic()) * 1000)}
        for number, (worker, job, deadline) in list(self._busy.items()):
            if number not in ready and time.monotonic() < deadline:
                continue
            del self._busy[number]
            finished = worker.finish() if number in ready else None
            if finished is None:
                self._retire(worker)
                self._retry(job)
            else:
                self._settle(job, *finished)

    def _settle(self, job: Job, reply: dict[str, object], answer: bytes, output: bytes) -> None:
        verdicts, again = job.verdicts(self._submissions, reply, answer, output, self._limits)
        for index, verdict, lasting in verdicts:
            self._done[index] = verdict, lasting
        self._queue.extendleft(reversed(again))

    def _retry(self, job: Job) -> None:
        """What a dead worker was doing is done by another one, at most TRIES times."""
        for index in job.indices:
            self._tries[index] += 1
            if self._tries[index] < TRIES:
                self._queue.append(Job([index], alone=True))
            else:
                verdict = Verdict(flaw=False, solved=False, reason="died with the worker that ran it")
                self._done[index] = verdict, False

    def _retire(self, worker: Worker) -> None:
        self._grader._workers.remove(worker)
        worker.close()


def _close_all(workers: list[Worker]) -> None:
    while workers:
        workers.pop().close()
