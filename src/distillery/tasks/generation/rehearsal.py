"""What would fail in a study of generation: keys, kinds of components, teachers that have seen what is withheld."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any, cast

import torch

from distillery.config import Problems
from distillery.data import SOURCES, open_source
from distillery.data.arrays import Shape, Source
from distillery.data.dataset import Dataset
from distillery.errors import DistilleryError
from distillery.models.base import Network
from distillery.objectives.base import Batch
from distillery.objectives.build import Loss
from distillery.pipeline.users_files import local_files
from distillery.records.header import Header
from distillery.study.blocks import Method, Recipe
from distillery.study.model import Study, Teacher
from distillery.task import task_of
from distillery.tasks.generation import Generation, Inception
from distillery.tasks.generation.biggan import AT_A_TIME, Discriminator
from distillery.tasks.generation.clip import CLIP
from distillery.tasks.generation.data import said_of
from distillery.tasks.generation.distance import known_classifier, verified
from distillery.tasks.generation.objectives.base import GAN
from distillery.tasks.generation.teaching import ShownTeachers
from distillery.tasks.generation.training import GenTraining, kind_of
from distillery.tasks.optimises import optimises
from distillery.tasks.rehearsing import misfits

ROWS = 4  # of the rehearsed batch


def rehearse(study: Study, images: bool) -> list[str]:
    """Return what would fail, one clause each; with `images` the files of the task must be there."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return list(_problems(study, images))


def _problems(study: Study, images: bool) -> Iterator[str]:
    task = cast(Generation, task_of(study.task))
    source = open_source(study.data.source, study.data.options)
    if study.data.source in SOURCES and study.data.source not in tuple(SOURCES):  # found, but not listed
        yield f"data.source: {study.data.source} has no images: take cifar100 or folder"
        return
    if source.streamed:
        yield f"data.source: {study.data.source} is streamed, and generators train on arrays: take cifar100 or folder"
        return
    try:
        shape = source.shape()
    except DistilleryError as error:
        shape = None
        if images:
            yield f"data: {error}"
    yield from _of_task(task, shape, images)
    asked = [
        t for t in study.teachers.values() if t.source != "train" and not issubclass(kind_of(t.architecture), CLIP)
    ]
    if task.config.trained_on and not asked:
        yield "task.trained_on: has no effect: no teacher is one that was trained elsewhere: leave it out"
    for name, teacher in study.teachers.items():
        if issubclass(kind_of(teacher.architecture), Discriminator):
            yield f"teachers.{name}: {teacher.architecture} is a discriminator: take a classifier, or clip_vit_b32"
            return
        yield from _of_teacher(f"teachers.{name}", task, teacher, study.data.source, source)
        yield from optimises(f"teachers.{name}", study.recipe_for_teacher(name))
        if study.recipe_for_teacher(name).validation:
            yield f"teachers.{name}: recipe.validation: generation holds nothing out: leave it out"
    training = GenTraining(task)
    data = _drawn(shape) if shape and shape.height == shape.width and not shape.height % 8 else None
    network = cache(lambda name: training.network(name, cast(Dataset, data)).eval())
    for p, pair in study.pairs.items():
        if not issubclass(kind_of(pair.student), Discriminator):
            yield f"pairs.{p}: {pair.student} is no discriminator: take one of biggan_ch2 to biggan_ch64"
            return
        for m in study.methods:
            where, method, recipe = f"methods.{m}", study.methods[m].for_pair(p), study.recipe_for(p, m)
            yield from _of_recipe(f"{where} for {p}", recipe, shape, task)
            steps = recipe.epochs * -(-_count(shape, task) // recipe.batch_size) if shape else None
            problems = list(_of_method(where, method, p, pair.teachers, recipe.epochs, steps))
            yield from problems
            if data and not problems:
                taught = [study.teachers[t].architecture for t in pair.teachers] if Loss(method).needs else []
                yield from _plays(
                    f"{where} for {p}", training, data, pair.student, method, partial(map, network, taught)
                )


def _count(shape: Shape, task: Generation) -> int:
    """Images that are trained on, as `data.limited` counts them."""
    return int(shape.train_images * task.config.fraction)


def _of_task(task: Generation, shape: Shape | None, images: bool) -> Iterator[str]:
    config = task.config
    if not config.classifier and not config.inception:
        yield "task: nothing says how images are compared: name `classifier` or `inception`"
    if config.sampling == "batch" and config.samples % AT_A_TIME:
        yield (
            f"task.samples: {config.samples % AT_A_TIME} of {config.samples} images would be normalised apart from the "
            f"others, which are made {AT_A_TIME} at a time: take {-(-config.samples // AT_A_TIME) * AT_A_TIME}"
        )
    for named in (config.classifier, config.inception) if images else ():
        try:
            if isinstance(named, Inception):
                verified(named.weights, named.sha256, "inception")
            elif named:
                path, header = known_classifier(named)
                made = shape and (shape.channels, shape.height, shape.width)
                if made and header.image != made:
                    its, ours = ("{} channel(s) and {} x {} pixels".format(*image) for image in (header.image, made))
                    yield (
                        f"task.classifier: {path} sees images of {its}, and those of the data have {ours}: name a "
                        "classifier of such images"
                    )
        except DistilleryError as error:
            yield str(error)


def _of_teacher(where: str, task: Generation, teacher: Teacher, data: str, source: Source) -> Iterator[str]:
    """Whether a teacher may have seen images that the study withholds."""
    config = task.config
    if teacher.source == "train":
        if issubclass(kind_of(teacher.architecture), CLIP):
            yield f"{where}: CLIP is not trained here: say `source: fetch` and name its file in `weights`"
        if config.teacher_classes:
            yield f"{where}: task.teacher_classes has no effect on a teacher that is trained here"
        return  # on the study's own images
    if issubclass(kind_of(teacher.architecture), CLIP):
        return  # on none of them, as far as its authors say
    files = [path for path in local_files(teacher) if path.is_file()]
    header = _header(files[0]) if files else None
    trained_on = header.data["source"] if header else config.trained_on
    if header and config.trained_on not in (None, trained_on):
        yield f"task.trained_on: the file of {where} says {trained_on}, not {config.trained_on}"
    elif trained_on is None and (teacher.source == "fetch" or files):
        yield f"{where}: it may have seen what is withheld: say in `task.trained_on` what it was trained on"
    elif trained_on == data:
        ours = said_of(source.selection(), config.fraction, config.fraction_seed)
        theirs = said_of(header.data["selection"] if header else {}, 1, 0)
        if ours != theirs:
            yield (
                f"{where}: it was trained on other images of {data} than this study trains on, and may have seen what "
                "is withheld: train it here (`source: train`), or take one of another data set"
            )


def _header(path: Path) -> Header | None:
    try:
        return Header.read(path)
    except DistilleryError:
        return None  # of another program


def _of_recipe(where: str, recipe: Recipe, shape: Shape | None, task: Generation) -> Iterator[str]:
    idle = {
        "validation": (recipe.validation, "generation holds nothing out"),
        "label_smoothing": (recipe.label_smoothing, "no class is predicted"),
        "ema": (recipe.ema, "the average is the generator's, with `ema_decay` of the method"),
        "drop_path": (recipe.drop_path, "a discriminator has no stochastic depth"),
        "augmentation.then": (recipe.augmentation.then, "what is shown is changed by `augment` of the method"),
    }
    yield from (f"{where}: recipe.{key}: {why}: leave it out" for key, (value, why) in idle.items() if value)
    if recipe.precision == "bfloat16":
        yield f"{where}: recipe.precision: generators train in float32, tf32 or float64"
    if shape:
        count = _count(shape, task)
        if min(count, recipe.batch_size) == 1 or count % recipe.batch_size == 1:
            yield f"{where}: the last batch of {count:,} images holds one, which has no statistics: change batch_size"
        if shape.height != shape.width or shape.height % 8:
            yield f"{where}: images of {shape.height}x{shape.width}: BigGAN needs squares whose side is a multiple of 8"
    yield from optimises(where, recipe)


def _of_method(
    where: str, method: Method, pair: str, teachers: tuple[str, ...], epochs: int, steps: int | None
) -> Iterator[str]:
    """`steps`: of the discriminator, if they are known."""
    try:
        loss = Loss(method)
    except Problems as found:
        yield from (f"{where}: {sentence}" for sentence in found.sentences)
        return
    kind, config = loss.main
    if not issubclass(kind, GAN):
        yield f"{where}: {method.objective} is no objective of generators: take gan, kd_dlgan or vkd_gan"
        return
    yield from misfits(where, method.objective, loss, pair, teachers, "classifiers, not on discriminators", GAN)
    if loss.needs and not config.ce_weight:
        yield f"{where}: ce_weight: 0 leaves out the hinge losses, without which there is no game"
    yield from (f"{where}: {fault}" for fault in loss.faults(epochs, len(teachers), hidden=False))
    yield from (f"{where}: {fault}" for fault in (kind.late(config, steps) if steps is not None else ()))


@torch.no_grad()
def _plays(
    where: str,
    training: GenTraining,
    data: Dataset,
    student: str,
    method: Method,
    teachers: Callable[[], Iterable[Network]],
) -> Iterator[str]:
    """Build a cell as a run does, and compute its loss on a few drawn images."""
    try:
        networks = [*teachers()]
        trainee = training.assemble(student, method, data, networks, 0)
        inputs = trainee.objective.shown(data.normalise(data.train_images), data.train_labels)
        taught = ShownTeachers(networks, Recipe(), data.mean, data.std).teach(inputs, [])
        trainee.objective(Batch(data.train_labels, trainee.student(inputs), taught, torch.ones(()), data.rows))
    except DistilleryError as error:
        yield f"{where}: {error}"
    except Exception as error:  # whatever the author's code raises
        said = " ".join(str(error).split())[:200]
        yield f"{where}: {method.objective} raises {type(error).__name__}: {said}"


def _drawn(shape: Shape) -> Dataset:
    images = torch.randint(0, 256, (ROWS, shape.channels, shape.height, shape.width), dtype=torch.uint8)
    labels = torch.arange(ROWS) % shape.num_classes
    half: Any = (0.5,) * shape.channels
    names = tuple(map(str, range(shape.num_classes)))
    return Dataset(images, labels, images, labels, names, shape.scale, half, half, torch.arange(ROWS))
