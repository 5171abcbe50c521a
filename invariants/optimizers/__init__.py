"""Any optimizer, measured: what it is by itself, and what it does to routing, space by space.

from invariants.optimizers import check_optimizer
print(check_optimizer(torch.optim.AdamW).advice)
"""

from invariants.optimizers.candidate import Candidate, Manner
from invariants.optimizers.catalogue import everything, named, package_version, torchs_own
from invariants.optimizers.finding import Answer, Finding
from invariants.optimizers.guarantees import GUARANTEES, SPACES, Figures
from invariants.optimizers.loop import Arm, RoutedLoop
from invariants.optimizers.measure import check_optimizer, survey
from invariants.optimizers.parametrize import parametrize_optimizers
from invariants.optimizers.probes import PROBES, Probe
from invariants.optimizers.report import OptimizerReport, Survey
from invariants.optimizers.routing import Router, SpaceReport

__all__ = [
    "GUARANTEES",
    "PROBES",
    "SPACES",
    "Answer",
    "Arm",
    "Candidate",
    "Figures",
    "Finding",
    "Manner",
    "OptimizerReport",
    "Probe",
    "RoutedLoop",
    "Router",
    "SpaceReport",
    "Survey",
    "check_optimizer",
    "everything",
    "named",
    "package_version",
    "parametrize_optimizers",
    "survey",
    "torchs_own",
]
