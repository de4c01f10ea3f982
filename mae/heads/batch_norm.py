"""Batch normalisation that says whose batch it means, whatever the devices and parts that a batch is shared out to."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mae.draws import RowAware, Rows


class BatchNorm(nn.BatchNorm1d, RowAware):
    """Normalise the channels of ``(B, D)`` features by the statistics of ``groups`` equal groups of the whole batch.

    One group is the batch. Where devices train together and each normalises by its own share, each has a group; testing
    then goes by the running statistics of the first, whose buffers torch's data-parallel training keeps. Nothing is
    affine, and no gradient goes to the features, which a frozen encoder gave.
    """

    def __init__(self, width: int, eps: float, groups: int = 1) -> None:
        super().__init__(width, affine=False, eps=eps)
        self.groups = groups

    def forward(self, features: Tensor) -> Tensor:
        if not self.training or (self.groups == 1 and self.rows is None):
            return super().forward(features)
        rows = self.rows or Rows.all(len(features))
        group = rows.ids(features.device) // (rows.batch // self.groups)
        seen = features.detach().float()
        count = self._summed(torch.ones_like(seen[:, :1]), group)
        mean = self._summed(seen, group) / count
        centred = seen - mean[group]
        variance = self._summed(centred.square(), group) / count
        self._follow(mean[0], variance[0] * count[0] / (count[0] - 1))
        return (centred * (variance[group] + self.eps).rsqrt()).to(features.dtype)

    def _summed(self, values: Tensor, group: Tensor) -> Tensor:
        """Sum ``values: (b, D)`` by group over all devices: ``(groups, D)``."""
        return self.world.sum(values.new_zeros(self.groups, values.shape[1]).index_add_(0, group, values))

    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        """Move the running statistics, as torch does: the variance is the unbiased one."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)
