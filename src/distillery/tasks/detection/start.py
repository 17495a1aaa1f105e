"""First weights of a detector's body from a file, such as a Swin that was trained on ImageNet."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import nn

from distillery.errors import DistilleryError
from distillery.models.base import Network
from distillery.tasks.detection import Start
from distillery.teachers.foreign import Damaged, read_weights

BODIES = ("backbone", "body")  # what the detectors here call it


@torch.no_grad()
def start_from(network: Network, start: Start) -> int:
    """Fill the body of a detector with the weights of a file that have its names and shapes; return how many did.

    What a classifier has besides (its head, masks) is left out, as is what it lacks (detection tokens).

    Raises DistilleryError if the file is missing, another one than expected, or of another network.
    """
    path = Path(start.path).expanduser()
    body = next((getattr(network, name) for name in BODIES if hasattr(network, name)), None)
    if not isinstance(body, nn.Module):
        raise DistilleryError(f"task.start: {type(network).__name__} has no body that could start from {path}")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DistilleryError(f"task.start: {path} cannot be read ({error.strerror}): name the file") from None
    if start.sha256 and not hashlib.sha256(content).hexdigest().startswith(start.sha256.lower()):
        raise DistilleryError(f"task.start: {path} is not the file of sha256 {start.sha256[:12]}: take that one")
    try:
        given, _ = read_weights(content)
    except Damaged as error:
        raise DistilleryError(f"task.start: {path} {error}") from None
    own = body.state_dict()
    shared = [key for key in own if key in given and own[key].shape == given[key].shape]
    wanted = [key for key in own if key.endswith(("attn.qkv.weight", "conv1.weight")) or ".proj.weight" in key]
    if missing := [key for key in wanted if key not in shared]:
        raise DistilleryError(f"task.start: {path} has no {missing[0]} of this size: it is of another network")
    for key in shared:
        own[key].copy_(given[key])
    return len(shared)
