"""Implementations that are broken on purpose, each by one line or one method, beside the correct ones."""

from collections.abc import Callable
from dataclasses import dataclass

from faults import adapter, loop, split
from invariants import SplitSetting, Subject

CORRECT = Subject(name="correct", split=split.CORRECT, routed_step=loop.CORRECT, adapter=adapter.CORRECT)


@dataclass(frozen=True)
class Fault:
    """A bug by its name, the invariant that must catch it, and a subject that has it."""

    name: str
    caught_by: str
    subject: Callable[[], Subject]


def of_split(name: str, caught_by: str, broken: Callable, setting: SplitSetting = split.ONE_SIDED) -> Fault:
    return Fault(name, caught_by, lambda: Subject(name=name, split={setting: broken}))


def of_loop(name: str, caught_by: str, broken: type[loop.Loop]) -> Fault:
    return Fault(name, caught_by, lambda: Subject(name=name, routed_step={loop.SETTING: loop.factory(broken)}))


def of_adapter(name: str, caught_by: str, broken: type[adapter.Adapted]) -> Fault:
    return Fault(name, caught_by, lambda: Subject(name=name, adapter=adapter.factory(broken)))


FAULTS = (
    of_split("removed reads the gradient that kept has changed in place", "split.conservation",
             split.second_reads_the_changed_gradient),
    of_split("overshoot for kept and not for removed", "split.conservation", split.overshoot_for_kept_alone,
             split.OVERSHOOT),
    of_split("an axis is in the basis twice", "split.pythagoras", split.axis_twice),
    of_split("coefficients of a shard are not reduced", "split.pythagoras", split.shard_by_shard),
    of_split("basis stored in bfloat16", "split.pythagoras", split.coarse_basis),
    of_split("sign of V flipped", "split.one_sided", split.sign_flipped),
    of_split("only the strongest axis is removed", "split.idempotence", split.strongest_axis_only),
    of_split("absolute threshold in the gate", "split.homogeneity", split.threshold),
    of_split("rectified under the name of no_gate", "split.additivity", split.one_sided, split.NO_GATE),
    of_split("signed sum over the axes before relu", "split.null_baseline", split.sum_before_relu),
    of_split("expanded with the basis of a step ago", "split.span", split.basis_of_a_step_ago),
    of_split("removed is g minus the rescaled kept", "split.span", split.removed_after_rescaling, split.PRESERVING),
    of_split("overshoot 1 is forced", "split.matches_reference", split.one_sided, split.OVERSHOOT),
    of_split("empty basis padded with a unit row", "split.empty_basis", split.padded_with_a_unit_row),
    of_split("rows of V normalised on the way in", "split.zero_rows", split.rows_normalised),
    of_split("norm taken after the split", "split.preserves_magnitude", split.norm_after_the_split, split.PRESERVING),
    of_split("preserve_magnitude is forced off", "split.preserves_magnitude", split.one_sided, split.PRESERVING),
    of_split("rescaled by a division by zero", "split.zero_gradient", split.divided_by_its_norm, split.PRESERVING),
    of_split("kept is written into the gradient's buffer", "split.purity", split.kept_takes_the_gradients_buffer),
    of_loop("clip covers the deployed set only", "clip.covers_both", loop.ClipOfDeployedOnly),
    of_loop("a generator of gradients is exhausted by the norm", "clip.covers_both", loop.ExhaustedGenerator),
    of_loop("clip counts the quarantine's duplicate gradient", "clip.reaches_limit", loop.DuplicateCounted),
    of_loop("clip per module", "clip.common_factor", loop.ClipPerModule),
    of_loop("clip configured and never passed on", "clip.takes_effect", loop.ClipNeverPassedOn),
    of_loop("normalised instead of clipped", "clip.inactive_below", loop.Normalised),
    of_loop("an axis is in the basis twice, in the loop", "clip.vanilla_norm", loop.AxisTwice),
    of_loop("AdamW with two states", "optimizer.keeps_sum", loop.AdamW),
    of_loop("weight decay on the quarantine only", "optimizer.keeps_sum", loop.DecayOfQuarantineOnly),
    of_loop("erase is clipped by a norm without the removed part", "optimizer.erase_match", loop.ClipAfterSplit),
    of_loop("erase has an overshoot that route has not", "optimizer.erase_match", loop.ErasedWithOvershoot),
    of_loop("AdamW turns the quarantine", "optimizer.span", loop.AdamW),
    of_loop("weight decay undoes anti-hack moves", "optimizer.update_leak", loop.Decay),
    of_loop("AdamW turns the kept gradient", "optimizer.displacement_leak", loop.AdamW),
    of_loop("the quarantine's gradient is zeros instead of None", "optimizer.inert_quarantine",
            loop.ZerosInsteadOfNone),
    of_loop("vanilla splits and puts together again", "optimizer.none_ignores_basis", loop.SplitAndPutTogether),
    of_loop("noise from the global generator", "optimizer.deterministic", loop.Noise),
    of_loop("momentum missing from the checkpoint", "optimizer.resumption", loop.MomentumNotSaved),
    of_loop("momenta of the two sets exchanged by a restore", "optimizer.resumption", loop.MomentaExchanged),
    of_loop("non-finite gradients are not refused", "optimizer.nonfinite_gradient", loop.NonFiniteAccepted),
    of_loop("modules without a basis are skipped", "optimizer.empty_module", loop.EmptyModulesSkipped),
    of_loop("dampening that nobody asked for", "optimizer.matches_reference", loop.Dampening),
    of_adapter("multiplied out instead of added to W x", "adapter.identity_at_zero", adapter.MultipliedOut),
    of_adapter("quarantine detached", "adapter.equal_gradients", adapter.QuarantineDetached),
    of_adapter("decomposed in bfloat16", "adapter.matches_reference", adapter.DecomposedInBfloat16),
    of_adapter("decomposition cached by shape", "adapter.matches_reference", adapter.DecompositionCachedByShape),
    of_adapter("signs of U and Vh not paired", "adapter.matches_reference", adapter.UnpairedSigns),
    of_adapter("ablation disables the whole adapter", "adapter.ablation", adapter.AblationDisablesTheAdapter),
    of_adapter("ablation restored without finally", "adapter.ablation_restores", adapter.AblationWithoutFinally),
    of_adapter("a nested ablation ends the outer one", "adapter.ablation_restores", adapter.AblationEndsInTrained),
    of_adapter("deployed vector stays on in the reference policy", "adapter.base_policy",
               adapter.DeployedVectorStaysOn),
    of_adapter("quarantine left out of the merged weight", "adapter.merge", adapter.QuarantineNotMerged),
    of_adapter("merged and hooked at once", "adapter.merge", adapter.MergedAndHooked),
    of_adapter("merged on top of what is merged already", "adapter.merge", adapter.MergedOnTopOfMerged),
    of_adapter("unmerge by subtraction", "adapter.unmerge", adapter.UnmergeBySubtraction),
    of_adapter("running sum exported", "adapter.export", adapter.RunningSumExported),
    of_adapter("quarantine in the exported checkpoint", "adapter.export", adapter.QuarantineExported),
    of_adapter("SVD computed under autograd", "adapter.frozen_basis", adapter.DecomposedUnderAutograd),
    of_adapter("weight trained too", "adapter.frozen_basis", adapter.WeightTrainedToo),
    of_adapter("gradient of the first backward counted twice", "adapter.frozen_basis", adapter.GradientNotCleared),
)  # fmt: skip
