"""Everything that code outside this package may use. What is not here may change without notice.

`from distillery.api import ...` imports torch. A job's code is identified by the modules that the names come from, so
a method that imports from here is due again when one of those changes, and not when another part of Distillery does.
docs/api.md lists all of them.
"""

from __future__ import annotations

from distillery.config import Config as Config
from distillery.config import Count as Count
from distillery.config import Epochs as Epochs
from distillery.config import Finite as Finite
from distillery.config import Fraction as Fraction
from distillery.config import Positive as Positive
from distillery.config import Share as Share
from distillery.config import Weight as Weight
from distillery.data.arrays import Arrays as Arrays
from distillery.data.arrays import Shape as Shape
from distillery.data.arrays import Source as Source
from distillery.errors import DistilleryError as DistilleryError
from distillery.evaluation.task import Evaluation as Evaluation
from distillery.imaging.draw import Draw as Draw
from distillery.models import build as build_network  # noqa: F401
from distillery.models.base import Network as Network
from distillery.models.base import Outputs as Outputs
from distillery.models.staged import Stage as Stage
from distillery.models.staged import StagedNetwork as StagedNetwork
from distillery.objectives.base import Batch as Batch
from distillery.objectives.base import Context as Context
from distillery.objectives.base import Incompatible as Incompatible
from distillery.objectives.base import Objective as Objective
from distillery.objectives.base import Selector as Selector
from distillery.objectives.base import Transform as Transform
from distillery.objectives.base import warmup as warmup
from distillery.objectives.build import build as build_objective  # noqa: F401
from distillery.objectives.features import align as align
from distillery.objectives.features import stage_taps as stage_taps
from distillery.objectives.soft import binary_kl_rows as binary_kl_rows
from distillery.objectives.soft import correlation as correlation
from distillery.objectives.soft import full_precision as full_precision
from distillery.objectives.soft import kl_rows as kl_rows
from distillery.objectives.soft import kl_rows_without as kl_rows_without
from distillery.objectives.soft import one_against_rest as one_against_rest
from distillery.objectives.soft import tempered as tempered
from distillery.recipe.base import Augment as Augment
from distillery.recipe.base import Falling as Falling
from distillery.recipe.base import Optimizer as Optimizer
from distillery.recipe.base import Schedule as Schedule
from distillery.records.header import Header as Header
from distillery.students.classifier import Classifier as Classifier
from distillery.students.classifier import Student as Student
from distillery.students.classifier import Teacher as Teacher
from distillery.students.classifier import load_student as load_student
from distillery.students.classifier import load_teacher as load_teacher
from distillery.students.export import export as export
from distillery.study.blocks import Method as Method
from distillery.task import Column as Column
from distillery.task import Measure as Measure
from distillery.task import Task as Task
from distillery.tasks.classification import Classification as Classification
from distillery.tasks.classification.evaluation import ClassEvaluation as ClassEvaluation
from distillery.tasks.classification.training import ClassTraining as ClassTraining
from distillery.training.task import Training as Training
from distillery.training.testing import additive as additive
from distillery.training.trainee import Trainee as Trainee
