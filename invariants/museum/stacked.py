"""A training loop whose calls do not grow with the modules, and what makes them grow."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from invariants.museum.loop import LR, MOMENTUM, SETTING, Gradients, Loop, Parts, broken_loop, factory

STACKED = replace(SETTING, optimizer="SGD foreach", constant_calls=True)


class StackedLoop(Loop):
    """Add up, clip, split, feed, step, as the loop does, on a stack of vectors for each shape."""

    def optimizer_over(self, deployed: list[nn.Parameter], quarantine: list[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.SGD([*deployed, *quarantine], lr=LR, momentum=MOMENTUM, foreach=True)

    def refuse_non_finite(self, g: Gradients) -> None:
        super().refuse_non_finite({"all": torch.cat([*g.values()])})

    def clip(self, g: Gradients) -> Gradients:
        factor = self.factor(g.values())
        return dict(zip(g, torch._foreach_mul([*g.values()], factor), strict=True))

    def split_all(self, g: Gradients) -> Parts:
        if self.intervention == "none":
            return {name: (t, None) for name, t in g.items()}
        parts: Parts = {}
        for names in self.alike(g):
            kept, removed = self.split_stack(
                torch.stack([g[name] for name in names]), torch.stack([self.basis[name] for name in names])
            )
            dropped = [None] * len(names) if self.intervention == "erase" else removed.unbind()
            parts.update(zip(names, zip(kept.unbind(), dropped, strict=True), strict=True))
        return parts

    def split_stack(self, g: Tensor, V: Tensor) -> tuple[Tensor, Tensor]:
        """g (m, r) and V (m, k, r)."""
        c = torch.relu(torch.bmm(V, g.unsqueeze(2)))
        removed = torch.bmm(V.transpose(1, 2), c).squeeze(2)
        return g - removed, removed

    def alike(self, g: Gradients) -> Iterator[list[str]]:
        shapes: defaultdict[torch.Size, list[str]] = defaultdict(list)
        for name in g:
            shapes[self.basis[name].shape].append(name)
        yield from shapes.values()

    def logged(self, g: Gradients, fed: list[Tensor]) -> dict[str, float]:
        whole, all_fed = torch.cat([*g.values()]), torch.cat(fed)
        return {"grad_norm_pre_clip": float(whole.norm()), "grad_norm_post_clip": float(all_fed.norm())}


CORRECT = {STACKED: factory(StackedLoop)}


@broken_loop("a loop over modules", caught_by="optimizer.constant_calls", setting=STACKED)
class LoopOverModules(StackedLoop):
    def alike(self, g: Gradients) -> Iterator[list[str]]:
        return ([name] for name in g)


@broken_loop("the clip scales one gradient at a time", caught_by="optimizer.constant_calls", setting=STACKED)
class ScaledOneByOne(StackedLoop):
    def clip(self, g: Gradients) -> Gradients:
        return Loop.clip(self, g)
