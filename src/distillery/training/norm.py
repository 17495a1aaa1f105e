"""Batch normalisation over the whole batch when several processes share it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from distillery.errors import DistilleryError
from distillery.training.parallel import Ranks, Sum


def share_norms(network: nn.Module, ranks: Ranks) -> None:
    """Let the network's batch normalisations take their statistics over all processes, while they train.

    The modules stay the same objects with the same parameters; only their forward pass changes. Raises DistilleryError
    for a batch normalisation of another class (timm has some that end in an activation).
    """
    if ranks.size > 1:
        for module in network.modules():
            if type(module) is nn.BatchNorm2d:
                module.__class__ = _SharedNorm
            elif isinstance(module, _BatchNorm) and not isinstance(module, _SharedNorm):
                raise DistilleryError(
                    f"the network normalises over batches by {type(module).__name__}, which several processes cannot "
                    "share: train it in one"
                )


class _SharedNorm(nn.SyncBatchNorm, nn.BatchNorm2d):
    """torch's synchronised normalisation, which wants CUDA, and on a CPU the same in plain operations."""

    process_group = None  # every process takes part

    def forward(self, images: Tensor) -> Tensor:
        if not self.training or images.is_cuda:
            return super().forward(images)
        assert self.running_mean is not None and self.running_var is not None and self.momentum is not None
        values = images.to(self.weight.dtype)  # bfloat16 under autocast
        sums = Sum.apply(torch.cat([values.sum((0, 2, 3)), values.new_tensor([values.numel() / values.shape[1]])]))
        count = sums[-1].detach()
        mean = sums[:-1] / count
        centred = values - mean[:, None, None]
        variance = Sum.apply(centred.square().sum((0, 2, 3))) / count
        with torch.no_grad():
            self.num_batches_tracked.add_(1)  # type: ignore[union-attr]
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(images.dtype)
