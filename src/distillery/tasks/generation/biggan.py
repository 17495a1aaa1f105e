"""BigGAN for small images: Brock, Donahue, Simonyan (arXiv:1809.11096, ICLR 2019), as KD-DLGAN's code has it.

Generator and discriminator are spectrally normalised; a class chooses gain and bias of the generator's batch
normalisations, and a direction of the discriminator's features. 64 channels, each times 4, is the published width.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distillery.errors import DistilleryError
from distillery.models.base import Network, Outputs

_INIT = 0.02  # deviation of the first weights ("N02")


class Shown(NamedTuple):
    """What a discriminator is shown: (N, C, H, W) images in [-1, 1], and their (N,) int64 classes."""

    images: Tensor
    labels: Tensor


class _Spectral(nn.Module):
    """Divides a weight by its largest singular value, which one power iteration per forward pass follows.

    Miyato et al. (arXiv:1802.05957, ICLR 2018). The singular vector `u0` moves in training mode alone; `sv0` is the
    value found last, which nothing reads.
    """

    weight: Tensor
    u0: Tensor
    sv0: Tensor
    eps = 1e-8

    def _begin(self) -> None:
        self.register_buffer("u0", torch.randn(1, len(self.weight)))
        self.register_buffer("sv0", torch.ones(1))
        nn.init.normal_(self.weight, 0, _INIT)

    def normalised(self) -> Tensor:
        """The weight over its largest singular value; the gradient goes through both."""
        matrix = self.weight.flatten(1)
        with torch.no_grad():
            v = F.normalize(self.u0 @ matrix, eps=self.eps)
            u = F.normalize(v @ matrix.T, eps=self.eps)
        value = (v @ matrix.T @ u.T).squeeze()
        if self.training:
            self.u0.copy_(u)
            self.sv0.copy_(value.detach())
        return self.weight / value


class SpectralConv(_Spectral, nn.Conv2d):
    """A convolution that keeps height and width."""

    def __init__(self, inputs: int, outputs: int, size: int = 3) -> None:
        nn.Conv2d.__init__(self, inputs, outputs, size, padding=size // 2)
        self._begin()

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.normalised(), self.bias, padding=self.padding)


class SpectralLinear(_Spectral, nn.Linear):
    """A linear layer."""

    def __init__(self, inputs: int, outputs: int) -> None:
        nn.Linear.__init__(self, inputs, outputs)
        self._begin()

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.normalised(), self.bias)


class SpectralEmbedding(_Spectral, nn.Embedding):
    """A vector for each class."""

    def __init__(self, classes: int, width: int) -> None:
        nn.Embedding.__init__(self, classes, width)
        self._begin()

    def forward(self, labels: Tensor) -> Tensor:
        return F.embedding(labels, self.normalised())


class _Norm(nn.Module):
    """Batch normalisation with one gain and bias per channel."""

    stored_mean: Tensor
    stored_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.register_buffer("stored_mean", torch.zeros(channels))
        self.register_buffer("stored_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, self.stored_mean, self.stored_var, self.gain, self.bias, self.training)


class _ClassNorm(nn.Module):
    """Batch normalisation whose gain and bias are the class's own."""

    stored_mean: Tensor
    stored_var: Tensor

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.register_buffer("stored_mean", torch.zeros(channels))
        self.register_buffer("stored_var", torch.ones(channels))
        self.gain, self.bias = nn.Embedding(classes, channels), nn.Embedding(classes, channels)
        for embedding in (self.gain, self.bias):
            nn.init.normal_(embedding.weight, 0, _INIT)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        out = F.batch_norm(x, self.stored_mean, self.stored_var, training=self.training)
        return out * (1 + self.gain(labels))[..., None, None] + self.bias(labels)[..., None, None]


class _Up(nn.Module):
    """A residual block that doubles height and width."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = SpectralConv(channels, channels), SpectralConv(channels, channels)
        self.conv_sc = SpectralConv(channels, channels, 1)
        self.bn1, self.bn2 = _ClassNorm(channels, classes), _ClassNorm(channels, classes)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        h = F.interpolate(F.relu(self.bn1(x, labels)), scale_factor=2)
        h = self.conv2(F.relu(self.bn2(self.conv1(h), labels)))
        return h + self.conv_sc(F.interpolate(x, scale_factor=2))


class _Down(nn.Module):
    """A residual block of the discriminator; the first one begins without an activation."""

    def __init__(self, inputs: int, outputs: int, first: bool, halves: bool) -> None:
        super().__init__()
        self.first, self.halves = first, halves
        self.conv1, self.conv2 = SpectralConv(inputs, outputs), SpectralConv(outputs, outputs)
        self.conv_sc = SpectralConv(inputs, outputs, 1) if halves or inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv2(F.relu(self.conv1(x if self.first else F.relu(x))))
        if self.halves:
            h = F.avg_pool2d(h, 2)
            x = F.avg_pool2d(x, 2) if self.first else x
        x = x if self.conv_sc is None else self.conv_sc(x)
        return h + (F.avg_pool2d(x, 2) if self.halves and not self.first else x)


class Generator(nn.Module):
    """(N, latent) noise and (N,) classes -> (N, C, size, size) images in (-1, 1). `size` is a multiple of 8."""

    def __init__(self, num_classes: int, channels: int, size: int, width: int, latent: int = 128) -> None:
        super().__init__()
        if size % 8:
            raise DistilleryError(f"BigGAN makes images whose side is a multiple of 8, not {size}: resize the data")
        self.bottom, self.num_classes, self.latent = size // 8, num_classes, latent
        self.linear = SpectralLinear(latent, 4 * width * self.bottom**2)
        self.blocks = nn.ModuleList(nn.ModuleList([_Up(4 * width, num_classes)]) for _ in range(3))
        self.output_layer = nn.Sequential(_Norm(4 * width), nn.ReLU(), SpectralConv(4 * width, channels))

    def forward(self, noise: Tensor, labels: Tensor) -> Tensor:
        h = self.linear(noise).view(len(noise), -1, self.bottom, self.bottom)
        for stage in self.blocks:
            (block,) = stage.children()
            h = block(h, labels)
        return torch.tanh(self.output_layer(h))


AT_A_TIME = 50  # images that are generated together in a test, as released: their statistics normalise them


@torch.no_grad()
def in_bytes(generator: Generator, noise: Tensor, labels: Tensor) -> Tensor:
    """(N, C, H, W) uint8 images on the CPU of (N, latent) noise and (N,) classes, made 50 at a time.

    Raises DistilleryError if they are not finite, and for one of 8 x 8 pixels that is left alone in training mode.
    """
    if generator.training and generator.bottom == 1 and len(noise) % AT_A_TIME == 1:
        raise DistilleryError(
            f"{len(noise)} images of 8 x 8 pixels leave one without others to be normalised with: ask for one more, or "
            "normalise by running means"
        )
    images = []
    for z, y in zip(noise.split(AT_A_TIME), labels.split(AT_A_TIME), strict=True):
        made = generator(z, y).float()
        if not made.isfinite().all():
            raise DistilleryError(
                "the generator's images are not finite: lower `recipe.lr` or the method's weights, and train anew"
            )
        images.append(((made + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).cpu())
    return torch.cat(images)


class Discriminator(Network):
    """`Shown` images -> one score each, (N, 1) logits: positive for what seems real. Pooled: their sums over places.

    Attributes:
        no_classifier: what `load_student` says of it.
    """

    no_classifier: ClassVar[str] = (
        "a discriminator: open the generator beside it by distillery.tasks.generation.generator.load_generator"
    )

    def __init__(self, num_classes: int, in_channels: int, width: int) -> None:
        super().__init__()
        self.width, outputs = width, 4 * width
        inputs = (in_channels, outputs, outputs, outputs)
        self.blocks = nn.ModuleList(
            nn.ModuleList([_Down(n, outputs, first=i == 0, halves=i < 2)]) for i, n in enumerate(inputs)
        )
        self.linear, self.embed = SpectralLinear(outputs, 1), SpectralEmbedding(num_classes, outputs)

    def forward(self, images: Shown, preacts: bool = False) -> Outputs:  # type: ignore[override]
        h = images.images
        for stage in self.blocks:
            (block,) = stage.children()
            h = block(h)
        pooled = F.relu(h).sum((2, 3))
        matched = (self.embed(images.labels) * pooled).sum(1, keepdim=True)
        return Outputs(self.linear(pooled) + matched, pooled)
