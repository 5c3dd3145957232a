"""The evaluation of a pack: in batches of which size, and what is done where memory is short."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from stability.training.batch_norm import set_precise_statistics
from stability.training.contexts import autocast
from stability.training.evaluation import Evaluator, Score, batches_at_once, evaluate

if TYPE_CHECKING:
    from stability.data import Batch
    from stability.training.module import StackModule


class PackEvaluation:
    """Evaluates the members of a module, as they are now."""

    def __init__(self, module: StackModule) -> None:
        self._module = module
        # Whether memory has not sufficed for large batches.
        self._stays_small = False

    @property
    def batches_at_once(self) -> int:
        """How many training batches an evaluation batch has."""
        module = self._module
        # Where images are made one by one, these and not launches take the time; processes share batches of one size.
        can = module.ranks.count == 1 and module.data.holds_eval_images and not self._stays_small
        return batches_at_once(module.stack.size * module.data.batch_size, module.device) if can else 1

    def evaluator(self) -> Evaluator:
        """Return what computes logits of the stack's weights and of the averages."""
        module = self._module
        parts = (module.micro_batches, module.micro_batches * self.batches_at_once)
        return Evaluator(module.stack, module.averages.together, parts, module.autocast_type, self._make_room)

    def scores(self, batches: Iterable[Batch]) -> list[Score]:
        """Return what is measured of every lane of the stack, then of the averages where any member has one."""
        return evaluate(self.evaluator(), batches, self._module.device, self._module.metrics)

    def set_statistics(self) -> None:
        """Compute the statistics of BatchNorm anew where the recipe does."""
        module = self._module
        if images := module.members[0].config.recipe.precise_bn:
            data = module.data
            ended, count = module.step // data.steps_per_epoch - 1, max(1, images // data.batch_size)
            batches = data.unmixed_batches(ended, count)
            with autocast(module.device, module.autocast_type):
                set_precise_statistics(module.stack, module.averages.every(), batches, module.micro_batches)

    def _make_room(self) -> bool:
        """Give memory to the evaluations, for good; tell whether there was any to give."""
        is_large = self.batches_at_once > 1
        has_graph = self._module.whole.drop_graph()
        self._stays_small = True
        return has_graph or is_large
