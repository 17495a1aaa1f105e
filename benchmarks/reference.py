"""A step of the classic distillation loop against ours: KD at batch 64 on CIFAR-100.

    python benchmarks/reference.py [--threads 1,2] [--pairs resnet32x4:resnet8x4,...] [--rounds 5] [--markdown]

The classic side does what the released trainers of the benchmark do: torchvision's transforms on PIL images in a
DataLoader with two workers, the teacher in the loop in float32, zero_grad / backward / SGD with torch's defaults, loss
and accuracies (top-1, top-5) read back in every step. Networks and threads are the same on both sides. Three things are
in its favour: its prefetched batches, that its workers are started once and not in every epoch, and the allocator
settings that our side makes for the whole process.

Ours is the step of `fit()` under the default recipe (deterministic) with channels_last: views by gather, the teacher
from a view table, fused SGD, nothing read back, plus its share of laying out the epoch. The table holds random logits:
they are read at the same cost, and the real one takes long to build. Pixels are CIFAR-100's where a mirror is beside
the checkout or named by --mirror, else random. On CUDA ours is the captured graph, and TF32 is a third precision.
"""

from __future__ import annotations

import sys
import time
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from ours import MIRROR, Ours, pixels, random_table
from PIL import Image
from side_by_side import alternate, device, milliseconds, now, parser, ratio, show, use_threads
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from torchvision import transforms

from distillery import models
from distillery.data.dataset import Dataset
from distillery.models.base import Network
from distillery.study.blocks import Recipe


class Images(TorchDataset):
    """Training images as the classic loop has them: PIL, augmented one by one in the workers."""

    def __init__(self, data: Dataset) -> None:
        self.pixels = data.train_images.permute(0, 2, 3, 1).numpy()
        self.labels = data.train_labels.tolist()
        steps = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
        self.transform = transforms.Compose([*steps, transforms.Normalize(data.mean, data.std)])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.pixels[index])), self.labels[index]


class Classic:
    """The classic loop."""

    def __init__(self, teacher: Network, student: Network, data: Dataset, batch: int, workers: int) -> None:
        self.device = device()
        self.teacher, self.student = teacher.to(self.device).eval(), student.to(self.device).train()
        self.optimizer = torch.optim.SGD(student.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
        self.loader = DataLoader(Images(data), batch, shuffle=True, num_workers=workers, drop_last=True)
        self.batches = iter(self.loader)
        self.losses: list[float] = []
        self.right: list[tuple[float, float]] = []

    def run(self, steps: int) -> float:
        """Train some steps with torch's default settings; return the seconds."""
        torch.use_deterministic_algorithms(False)
        torch.backends.cudnn.benchmark = torch.backends.cudnn.allow_tf32 = True
        start, starting = now(), 0.0
        for _ in range(steps):
            batch = next(self.batches, None)
            if batch is None:
                again = now()
                self.batches = iter(self.loader)
                batch = next(self.batches)
                starting += now() - again
            self.step(*batch)
        taken = now() - start - starting
        time.sleep(0.1)  # let the workers fill their queues, so that they do not disturb the other side
        return taken

    def step(self, images: Tensor, labels: Tensor) -> None:
        images, labels = images.to(self.device), labels.to(self.device)
        logits = self.student(images).logits
        with torch.no_grad():
            target = self.teacher(images).logits
        log_p, q = F.log_softmax(logits / 4, dim=1), F.softmax(target / 4, dim=1)
        kd = F.kl_div(log_p, q, reduction="none").sum(1).mean() * 16
        loss = 0.1 * F.cross_entropy(logits, labels) + 0.9 * kd
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.losses.append(loss.item())
        hits = logits.topk(5, 1).indices == labels[:, None]
        self.right.append((hits[:, 0].float().mean().item(), hits.any(1).float().mean().item()))


def main(argv: list[str] | None = None) -> None:
    options = parser(__doc__, rounds=5, steps=3, batch=64, images=10_000, workers=2)
    options.add_argument("--threads", default="1,2", help="OpenMP threads of both sides, several to try; default 1,2")
    options.add_argument("--pairs", default="resnet32x4:resnet8x4,wrn_40_2:wrn_16_2", help="teacher:student,...")
    options.add_argument("--mirror", type=Path, default=MIRROR if MIRROR.is_dir() else None, help="CIFAR-100 mirror")
    options.add_argument("--random", dest="mirror", action="store_const", const=None, help="random pixels")
    given = options.parse_args(argv)
    data = pixels(given.images, given.mirror)
    table = random_table(given.images, 162, 100)
    precisions = ["float32", *(["tf32"] if device().type == "cuda" else []), "bfloat16"]
    rows = []
    for threads in map(int, given.threads.split(",")):
        use_threads(threads)
        for pair in given.pairs.split(","):
            teacher, student = pair.split(":")
            networks = (models.build(name, 100) for name in (teacher, student))
            sides = {"classic": partial(Classic(*networks, data, given.batch, given.workers).run, given.steps)}
            for precision in precisions:
                recipe = Recipe(batch_size=given.batch, precision=precision, channels_last=True)
                sides[precision] = partial(Ours(student, data, table, recipe).run, given.steps)
            times = alternate(sides, given.rounds)
            row = [f"{teacher} -> {student}", threads, milliseconds(times["classic"], given.steps)]
            for precision in precisions:
                row += [milliseconds(times[precision], given.steps), ratio(times["classic"], times[precision])]
            rows.append(row)
            print(f"{pair}, {threads} thread(s): done", file=sys.stderr)
    heads = ["pair", "threads", "classic, ms/step"]
    heads += [head for precision in precisions for head in (f"{precision}, ms/step", "classic / ours")]
    note = f"Batch {given.batch}, {'CIFAR-100' if given.mirror else 'random'} pixels, {given.workers} loader workers, "
    note += f"{given.rounds} rounds of {given.steps} steps; in brackets the middle half of the rounds."
    show("reference: the classic loop against ours, KD", heads, rows, given.markdown, note)


if __name__ == "__main__":
    main()
