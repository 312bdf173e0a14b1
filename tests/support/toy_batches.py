"""Samples of the toy map task, drawn while training."""

from typing import ClassVar

import torch

from stm_models.training.batches import Batches


class ToyBatches(Batches):
    """One bright pixel in noise; what it was made with, and which epochs it drew, is remembered."""

    made: ClassVar[list] = []

    def __init__(self, parameters, *, count, batch_size, device):
        self.count, self.side, self.size, self.device = count, parameters["side"], batch_size, device
        self.epochs = []
        self.made.append(self)

    def epoch(self, number, generator):
        self.epochs.append(number)
        for _ in range(self.count):
            where = torch.randint(self.side**2, (self.size,), generator=generator)
            bright = torch.nn.functional.one_hot(where, self.side**2).view(-1, 1, self.side, self.side).float()
            noise = 0.1 * torch.randn(self.size, 2, self.side, self.side, generator=generator)
            yield (noise + 3 * bright).to(self.device), bright.repeat(1, 2, 1, 1).to(self.device)
