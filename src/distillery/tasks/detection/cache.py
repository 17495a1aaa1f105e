"""What is kept of a teacher of detectors: adversarial twins of the training images, where the study asks for them."""

from __future__ import annotations

from distillery.pipeline.work import Work
from distillery.records import io as artifacts
from distillery.study.blocks import Recipe
from distillery.task import task_of
from distillery.tasks.detection import Detection
from distillery.tasks.detection.attack import attacked
from distillery.tasks.detection.training import BoxTraining
from distillery.tasks.detection.twins import write_twins
from distillery.training.device import set_up
from distillery.training.progress import Progress


def run(work: Work) -> None:
    """Part "cache": the twins, or an empty file; and a record that says that the teacher is asked live."""
    values, output = work.job.values, work.job.outputs["table"]
    task = task_of(values["task"])
    assert isinstance(task, Detection)
    attack, device = task.config.adversarial, set_up(Recipe())
    work.on(device)
    with work.making() as volatile:
        if attack is None:
            with artifacts.atomic_path(output) as temporary:
                temporary.write_bytes(b"")
        else:
            training = BoxTraining(task)
            data = training.load(work.job.reads["arrays"], work.sha256("arrays"), Recipe(), device)
            network = training.trained(values["architecture"], data, work.job.reads["weights"]).to(device)
            with Progress(f"adversarial images of {work.job.keys[0]}", volatile) as progress:
                write_twins(output, attacked(network, data, attack, progress.rows))
        kept = "tokens are too many to be kept" + ("; of adversarial images there are twins" if attack else "")
        work.write(teacher_sha256=work.sha256("weights"), bytes=output.stat().st_size, live=kept)
