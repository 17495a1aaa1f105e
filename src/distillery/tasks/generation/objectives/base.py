"""GAN: the student trained alone, a discriminator, in a game of two with the generator that its objective owns."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from distillery.config import Count, Fraction, Weight
from distillery.data.views import seed_for
from distillery.imaging.draw import Draw
from distillery.models.base import Outputs
from distillery.objectives.base import Batch, Context, Objective
from distillery.objectives.soft import full_precision
from distillery.tasks.generation.augment import augment
from distillery.tasks.generation.biggan import Discriminator, Generator, Shown, in_bytes
from distillery.tasks.generation.losses import hinge, lecam

Steps = Annotated[int, Field(ge=0)]


@dataclass(frozen=True, slots=True)
class GameContext(Context):
    """What a game is made of besides.

    Attributes:
        generator, discriminator: the players, with their first weights.
        seed: of the run, which all noise depends on.
        mean, std: per channel, of the normalised images that the loader gives.
    """

    generator: Generator | None = None
    discriminator: Discriminator | None = None
    seed: int = 0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()


class Wanted(NamedTuple):
    """An order for images, which the averaged generator fills: the same noise and classes every time.

    Attributes:
        number: how many.
        batch_statistics: normalise by the 50 images at a time, else by running means.
        labels: (number,) int64 classes; drawn evenly if None.
    """

    number: int
    batch_statistics: bool
    labels: Tensor | None = None


class Seen(NamedTuple):
    """How a step went: (2 B, 1) scores, of generated images first, and the generator's last loss."""

    scores: Tensor
    generator: Tensor


class GAN(Objective):
    """L_D = ce_weight * (hinge of real + hinge of generated images) + lecam * LeCam, L_G = -mean score.

    The student trains in every step on as many generated as real images, the generator in every `d_steps`-th, each by
    an optimiser of the recipe's kind: it is one object that keeps a state per parameter, and in a player's turn the
    other one has no gradient. An average follows the generator, buffers too; it makes the images that a run is judged
    by. Its method has no teacher; others derive from it.
    """

    needs = frozenset()

    class Config(Objective.Config):
        """Keys of a method's block."""

        idle = MappingProxyType(dict.fromkeys(("lecam_decay", "lecam_start"), ({"lecam": 0},)))

        ce_weight: Weight = 1.0
        """Of the hinge losses, which are here what the cross-entropy is for classes."""
        d_steps: Count = 4
        """Steps of the discriminator for each of the generator; as released."""
        augment: tuple[Literal["color", "translation", "cutout"], ...] = ("translation", "cutout")
        """DiffAugment's changes to all that the discriminator is shown; as released for CIFAR."""
        ema_decay: Fraction = 0.9999
        """Of the generator's average; as released."""
        ema_start: Steps = 1000
        """Steps of the generator until the average is more than a copy; as released."""
        lecam: Weight = 0.0
        """Of LeCam's term; 0.3 in the released scripts of KD-DLGAN."""
        lecam_decay: Fraction = 0.99
        """Of the moving means of scores that it compares with; as google/lecam-gan has it."""
        lecam_start: Steps = 1000
        """Steps of the generator before it acts."""

    config: Config
    steps: Tensor
    generator_loss: Tensor
    mean_scores: Tensor
    mean: Tensor
    std: Tensor

    @classmethod
    def late(cls, config: Config, steps: int) -> Iterator[str]:
        """Say what never begins in so many steps of the discriminator."""
        made = steps // config.d_steps
        late = f"has no effect: {made:,} of {steps:,} steps are the generator's, and"
        if not made:
            yield f"d_steps: {config.d_steps} of {steps:,} steps leave none for the generator: lower it"
        elif config.lecam and (steps - 1) // config.d_steps <= config.lecam_start:
            yield f"lecam: {late} lecam_start is {config.lecam_start:,}: lower it"
        elif config.ema_decay != type(config).model_fields["ema_decay"].default and made < config.ema_start:
            yield f"ema_decay: {late} ema_start is {config.ema_start:,}: lower it"

    def __init__(self, context: Context, config: Config | None = None) -> None:
        super().__init__(context, config)
        assert isinstance(context, GameContext) and context.generator and context.discriminator
        self.generator, self.seed = context.generator, context.seed
        self.average: Generator = copy.deepcopy(context.generator).requires_grad_(False)
        self.opponent = (context.discriminator,)  # in a tuple: the student is no part of its objective
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("generator_loss", torch.zeros(()))
        self.register_buffer("mean_scores", torch.zeros(2))  # of real and of generated images
        for name, values in (("mean", context.mean), ("std", context.std)):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)

    @property
    def static(self) -> bool:
        """Whether it is the generator's turn is asked on the host."""
        return False

    def noise(self, purpose: str, count: int) -> tuple[Tensor, Tensor, Draw]:
        """Noise (count, latent), classes (count,) and more numbers: a function of seed, purpose and steps so far."""
        device, weight = self.steps.device, self.generator.linear.weight
        draw = Draw(seed_for(self.seed, "gan", purpose), self.steps, torch.arange(count, device=device))
        return draw.normal(self.generator.latent).to(weight.dtype), draw.below(self.generator.num_classes), draw

    def shown(self, inputs: Any, targets: Any) -> Shown:
        """Generated and real images, (2 B, ...) in that order, changed alike, with their classes."""
        real = (inputs * self.std + self.mean) * 2 - 1
        noise, classes, _ = self.noise("discriminator", len(real))
        with torch.no_grad():
            fake = self.generator(noise, classes)
        images, labels = torch.cat([fake, real]), torch.cat([classes, targets])
        _, _, draw = self.noise("augment", len(images))
        return Shown(augment(images, draw, self.config.augment), labels)

    def supervised(self, batch: Batch) -> dict[str, Tensor]:
        fake, real = full_precision(batch.student.logits).chunk(2)
        terms = dict(zip(("hinge_real", "hinge_fake"), hinge(real, fake), strict=True))
        terms = {name: self.config.ce_weight * term for name, term in terms.items()}
        if self.config.lecam:
            made = int(self.steps) // self.config.d_steps
            decay = self.config.lecam_decay if made > self.config.lecam_start else 0.0
            now = torch.stack([real.detach().mean(), fake.detach().mean()])
            self.mean_scores.lerp_(now.to(self.mean_scores.dtype), 1 - decay)
            if made > self.config.lecam_start:
                terms["lecam"] = self.config.lecam * lecam(real, fake, *self.mean_scores)
        return terms

    def then(self, batch: Batch) -> Iterator[dict[str, Tensor]]:
        """The generator's turn, and its average's."""
        self.steps += 1
        made, rest = divmod(int(self.steps), self.config.d_steps)
        if rest:
            return
        (discriminator,) = self.opponent
        noise, classes, draw = self.noise("generator", len(batch.index))
        discriminator.requires_grad_(False)
        images = augment(self.generator(noise, classes), draw, self.config.augment)
        loss = -full_precision(discriminator(Shown(images, classes)).logits).mean()
        yield {"generator": loss}
        discriminator.requires_grad_(True)
        self.generator_loss.copy_(loss.detach())
        self._follow(self.config.ema_decay if made >= self.config.ema_start else 0.0)

    @torch.no_grad()
    def _follow(self, decay: float) -> None:
        pairs = zip(self.average.state_dict().values(), self.generator.state_dict().values(), strict=True)
        for mean, new in pairs:
            mean.lerp_(new, 1 - decay)

    def predict(self, outputs: Outputs | Wanted) -> Any:
        """Of a step's outputs how it went (`Seen`); of an order the images and classes (see `generate`)."""
        if isinstance(outputs, Wanted):
            return self.generate(outputs)
        return Seen(outputs.logits, self.generator_loss)

    @torch.no_grad()
    def generate(self, wanted: Wanted) -> tuple[Tensor, Tensor]:
        """Images (N, C, H, W) uint8 and their classes (N,), on the CPU. The run's state is left as it is.

        Raises DistilleryError if the generator gives what is no number.
        """
        network = copy.deepcopy(self.average).train(wanted.batch_statistics)
        device, weight = self.steps.device, network.linear.weight
        draw = Draw(seed_for("generation", "test"), 0, torch.arange(wanted.number, device=device))
        noise, drawn = draw.normal(network.latent).to(weight.dtype), draw.below(network.num_classes)
        labels = drawn if wanted.labels is None else wanted.labels.to(device)
        return in_bytes(network, noise, labels), labels.cpu()
