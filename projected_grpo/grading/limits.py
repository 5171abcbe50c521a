"""How much a submission may use."""

from dataclasses import dataclass, fields

from projected_grpo.errors import SettingError


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits of one submission; each is at least 1, but for `wall_seconds`, which is above 0.

    `cpu_seconds` and `memory_mib` hold for each of the processes that a submission may start, the others for all of
    them together. A submission that uses up its CPU time or its wall time is not solved.
    """

    cpu_seconds: int = 2
    wall_seconds: int | float = 10.0  # far above the CPU time, so that a busy machine changes no verdict
    memory_mib: int = 512
    processes: int = 16  # threads count too
    open_files: int = 64
    file_mib: int = 8  # of one file, and of what is printed
    folder_mib: int = 16  # of the working folder, which lies in memory
    output_kib: int = 256  # what is looked at of what was printed
    answer_kib: int = 2048  # all the values of a submission, encoded

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            least = 0.01 if field.name == "wall_seconds" else 1
            if not least <= value < 1_000_000:
                raise SettingError(f"{field.name} is {value!r}: give a number from {least} to a million")
