"""One hypothesis profile, one thread, and shapes in signatures that are really checked."""

import torch
from hypothesis import HealthCheck, settings
from jaxtyping import install_import_hook

# Before the packages are imported: beartype then checks every annotated shape and type of theirs in every test.
install_import_hook(["projected_grpo"], "beartype.beartype")

settings.register_profile(
    "ci", derandomize=True, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("ci")

torch.set_num_threads(1)
