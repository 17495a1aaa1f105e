"""What discriminators and generators minimise, as KD-DLGAN's code has it (losses.py of cuikaiwen18/KD_DLGAN)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def hinge(real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    """The discriminator's loss on the scores of real and of generated images: means of the two hinges."""
    return F.relu(1 - real).mean(), F.relu(1 + fake).mean()


def lecam(real: Tensor, fake: Tensor, mean_real: Tensor, mean_fake: Tensor) -> Tensor:
    """LeCam regularisation: Tseng et al. (arXiv:2104.03310, CVPR 2021).

    Scores of real images above the moving mean of generated ones, and the reverse, squared; means over the images.
    """
    return F.relu(real - mean_fake).square().mean() + F.relu(mean_real - fake).square().mean()


def aggregated(teacher: Tensor, own: Tensor, other: Tensor) -> Tensor:
    """KD-DLGAN's aggregated term, Cui et al. (arXiv:2303.17158, CVPR 2023), of (B, d) embeddings.

    Mean distance of the teacher's embeddings of some images to the discriminator's of the same ones (`own`), and to its
    embeddings of as many images of the other kind (`other`): real against generated. Both are minimised, as released.
    """
    return (teacher - own).norm(dim=1).mean() + (teacher - other).norm(dim=1).mean()


def correlated(student: Tensor, teacher: Tensor, prototypes: Tensor) -> Tensor:
    """KD-DLGAN's correlated term: similarities with (K, d) prototypes, each row normalised, compared.

    Squared differences are summed over the batch, as released. There prototypes are CLIP's embeddings of texts, and the
    products are taken in half precision, which is left out here.
    """
    ours, theirs = (F.normalize(x @ prototypes.T) for x in (student, teacher))
    return (theirs - ours).square().sum()
