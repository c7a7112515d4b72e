"""What moves the weights in training: AdamW, or Muon for the weights of the layers and AdamW for all else.

Muon (K. Jordan et al., 2024) steps in orthogonal matrices, and learns in fewer epochs. torch's own multiplies in
bfloat16 wherever it runs, which takes many times as long on a processor that has no such instruction.
"""

from __future__ import annotations

import inspect

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

from .device import multiplies_bfloat16
from .network import ANN, raw_weight

# AdamW steps by so much, Muon by a share of the weights: where the one takes 0.003, the other takes 0.05.
_MUON_RATE = 50 / 3
# Of the iteration that makes a matrix orthogonal. More take time, and bring nothing.
_ITERATIONS = 3
# Its polynomial brings singular values near 1 soonest, not closest (K. Jordan et al., 2024).
_LINEAR, _CUBIC, _QUINTIC = 3.4445, -4.7750, 2.0315


def orthogonal(matrix: Tensor) -> Tensor:
    """Near the orthogonal matrix that is closest to a matrix: the same shape, its singular values about 1."""
    rows, columns = matrix.shape
    x = matrix.T if rows > columns else matrix
    # A product that is rounded to 8 bits moves the weights as well.
    x = x.to(torch.bfloat16 if multiplies_bfloat16(matrix.device) else torch.float32)
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(_ITERATIONS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=_CUBIC, alpha=_QUINTIC), x, beta=_LINEAR)
    return x.T if rows > columns else x


class Plain(torch.optim.Optimizer):
    """torch's methods without its compiler, which leaves them as they are and takes seconds to import."""

    add_param_group, zero_grad, state_dict, load_state_dict = (
        inspect.unwrap(getattr(torch.optim.Optimizer, name))
        for name in ("add_param_group", "zero_grad", "state_dict", "load_state_dict")
    )


class AdamW(Plain, torch.optim.AdamW):
    """torch's AdamW."""

    step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))


class Muon(Plain):
    """Nesterov momentum whose steps are made orthogonal, for weights as matrices [outputs, all else]."""

    def __init__(self, matrices: list[nn.Parameter], learning_rate: float, momentum: float) -> None:
        super().__init__(matrices, {"lr": learning_rate, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # nothing computes gradients anew
        """Move the matrices along their gradients."""
        (group,) = self.param_groups
        for matrix in group["params"]:
            state = self.state[matrix]
            if not state:
                state["momentum_buffer"] = torch.zeros_like(matrix)
            moving = state["momentum_buffer"].lerp_(matrix.grad, 1 - group["momentum"])
            step = orthogonal(matrix.grad.lerp(moving, group["momentum"]))
            # Rows of a tall matrix cannot all be orthogonal: each step of one is shorter.
            longer = max(1, matrix.shape[0] / matrix.shape[1]) ** 0.5
            matrix.add_(step, alpha=-group["lr"] * longer)


class Optimizer:
    """The optimizers of one training, each with its schedule over `steps` steps, as one.

    With name "muon", batch norm must follow every weight that it moves: weights keep a norm of 1 an output
    channel, on average, and steps are relative to that. Parameters that take no gradient stay as they are.

    momentum   Muon's, or beta1 of AdamW where that moves all. None: what the schedule says
    schedule   "one-cycle" rises to the learning rate and falls; where no momentum is given, that goes the
               opposite way, 0.95 … 0.85 … 0.95 (L. Smith, 2018). "linear" falls from the learning rate to 0,
               and no momentum is the optimizer's own: 0.95 of Muon, 0.9 of AdamW
    """

    def __init__(
        self,
        ann: ANN,
        name: str,
        learning_rate: float,
        weight_decay: float,
        steps: int,
        schedule: str = "one-cycle",
        momentum: float | None = None,
    ) -> None:
        filters = [raw_weight(part.conv) for part in ann.parts] if name == "muon" else []
        weights = [weight for weight in filters if weight.requires_grad]
        self._matrices = [(weight, _as_matrix(weight)) for weight in weights]
        moved = {id(weight) for weight in weights}
        others = [p for p in ann.parameters() if p.requires_grad and id(p) not in moved]
        self.steps = steps
        # In one pass over the weights where they lie, where the device can.
        fused = others[0].device.type in ("cpu", "cuda")
        beta = 0.9 if name == "muon" or momentum is None else momentum
        self.each: list[torch.optim.Optimizer] = [
            AdamW(others, learning_rate, (beta, 0.999), weight_decay=weight_decay, fused=fused)
        ]
        if weights:
            matrices = [matrix for _, matrix in self._matrices]
            rate, own = learning_rate * _MUON_RATE, 0.95 if momentum is None else momentum
            self.each.append(Muon(matrices, rate, own))
        self.schedules = [self._scheduled(each, schedule, momentum is None) for each in self.each]

    def _scheduled(self, optimizer: torch.optim.Optimizer, schedule: str, cycled: bool) -> LRScheduler:
        if schedule == "linear":
            return LambdaLR(optimizer, lambda step: 1 - step / self.steps)
        rate = optimizer.defaults["lr"]
        # The rise ends with this step. torch would divide by 0 where that is the first, as in a training of 5.
        top = 0.2 if self.steps != 5 else 0.19
        return OneCycleLR(optimizer, rate, self.steps, pct_start=top, cycle_momentum=cycled)

    @torch.no_grad()
    def step(self) -> None:
        """Move the weights along their gradients, the schedules by one step, and forget the gradients."""
        for weight, matrix in self._matrices:
            assert weight.grad is not None
            matrix.grad = weight.grad.permute(0, 2, 3, 1).reshape(matrix.shape)
        for each, schedule in zip(self.each, self.schedules, strict=True):
            each.step()
            schedule.step()
            each.zero_grad(set_to_none=True)
        for weight, matrix in self._matrices:
            weight.grad = None
            matrix.mul_(len(matrix) ** 0.5 / matrix.norm().clamp(min=1e-12))


def _as_matrix(weight: nn.Parameter) -> nn.Parameter:
    """[outputs, all else] over the memory of a weight [O, I, H, W], which from now on lies channels last."""
    outputs, inputs, height, width = weight.shape
    rows: Tensor = weight.detach().permute(0, 2, 3, 1).reshape(outputs, -1).clone()
    weight.data = rows.view(outputs, height, width, inputs).permute(0, 3, 1, 2)
    return nn.Parameter(rows)
