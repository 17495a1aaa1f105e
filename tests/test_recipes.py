"""Parts of a recipe: optimisers, schedules, decay groups, clipping, smoothing, averaging; what is refused; identity."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import small_study
import torch
import torch.nn.functional as F
from logit_batches import batch, context
from torch import Tensor, nn

from distillery.models.base import Outputs
from distillery.objectives.base import Context
from distillery.objectives.build import build
from distillery.pipeline import fingerprint as code
from distillery.pipeline.check import check, rehearse
from distillery.pipeline.fingerprint import components
from distillery.pipeline.planner import resolve
from distillery.pipeline.users_files import named_files
from distillery.records.io import DistilleryError
from distillery.report.recipes import described, differing
from distillery.study.blocks import Ema, Method, Recipe
from distillery.study.contradictions import contradictions
from distillery.tasks.classification.training import ClassTraining
from distillery.training import loop
from distillery.training.average import Average
from distillery.training.optimizer import groups, make_optimizer, set_rate
from distillery.training.trainee import Trainee

CPU = torch.device("cpu")
COSINE = {"name": "cosine", "warmup_epochs": 5, "warmup_lr": 1e-4, "min_lr": 1e-3}


# --- optimisers -------------------------------------------------------------------------------------------------------


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 3))


def learn(model: nn.Module, optimizer: torch.optim.Optimizer, rates: list[float]) -> list[Tensor]:
    torch.manual_seed(1)
    for rate in rates:
        set_rate(optimizer, rate)
        optimizer.zero_grad()
        F.cross_entropy(model(torch.randn(8, 1, 8, 8)), torch.arange(8) % 3).backward()
        optimizer.step()
    return [p.detach() for p in model.parameters()]


TORCH: dict[str, tuple[dict[str, Any], Any]] = {
    "sgd": ({"momentum": 0.8, "nesterov": True}, lambda p, **k: torch.optim.SGD(p, **k, momentum=0.8, nesterov=True)),
    "sgd in a block": (
        {"optimizer": {"name": "sgd", "momentum": 0.0}},
        lambda p, **k: torch.optim.SGD(p, **k, momentum=0.0),
    ),
    "adam": ({"optimizer": {"name": "adam", "eps": 1e-6}}, lambda p, **k: torch.optim.Adam(p, **k, eps=1e-6)),
    "adamw": (
        {"optimizer": {"name": "adamw", "betas": [0.8, 0.95]}},
        lambda p, **k: torch.optim.AdamW(p, **k, betas=(0.8, 0.95)),
    ),
}


@pytest.mark.parametrize("name", TORCH)
def test_optimizers_are_those_of_torch(name: str) -> None:
    """Bit for bit, although their state exists before the first step and torch's does not."""
    recipe, theirs = Recipe(lr=0.02, weight_decay=0.1).updated(TORCH[name][0]), network()
    rates = [0.02, 0.02, 0.01, 0.005]
    expected = learn(theirs, TORCH[name][1](theirs.parameters(), lr=0.02, weight_decay=0.1, fused=True), rates)
    ours = network()
    optimizer = make_optimizer(list(ours.named_parameters()), recipe, CPU)
    assert all(p.grad is None for p in ours.parameters())
    assert all(not t.any() for state in optimizer.state.values() for t in state.values())
    assert all(torch.equal(a, b) for a, b in zip(learn(ours, optimizer, rates), expected, strict=True))


class Tokens(nn.Module):
    """Parameters as vision transformers have them."""

    def __init__(self) -> None:
        super().__init__()
        self.cls_token, self.dist_token = nn.Parameter(torch.ones(1, 1, 4)), nn.Parameter(torch.ones(1, 1, 4))
        self.pos_embed = nn.Parameter(torch.ones(1, 6, 4))
        self.patch_embed, self.norm, self.head = nn.Conv2d(3, 4, 2), nn.LayerNorm(4), nn.Linear(4, 5)


def test_decay_on_all_or_on_matrices() -> None:
    named = list(Tokens().named_parameters())
    (everything,) = groups(named, Recipe())
    assert [id(p) for p in everything["params"]] == [id(p) for _, p in named]
    names = {id(p): n for n, p in named}
    kept, free = groups(named, Recipe(decay="matrices", weight_decay=0.3))
    assert [names[id(p)] for p in kept["params"]] == ["patch_embed.weight", "head.weight"]
    assert len(free["params"]) == len(named) - 2
    assert (kept["weight_decay"], free["weight_decay"]) == (0.3, 0.0)


@pytest.mark.parametrize("name", ["levit_128s", "vit_dwee_patch16_reg1_gap_256", "swinv2_tiny_window8_256"])
def test_decay_on_matrices_is_on_those_of_timms_own_groups(name: str) -> None:
    """Attention biases, register tokens: a network names by `no_weight_decay` what no rule would find."""
    timm = pytest.importorskip("timm")
    from timm.optim import param_groups_weight_decay

    with torch.device("meta"):
        network = timm.create_model(name, num_classes=3)
    want = param_groups_weight_decay(network, 0.1, no_weight_decay_list=network.no_weight_decay())
    wrapped = nn.Sequential()
    wrapped.add_module("module", network)
    trainee = Trainee(wrapped, nn.Identity(), ClassTraining())  # type: ignore[arg-type]
    kept, free = groups(trainee.named_parameters(), Recipe(decay="matrices", weight_decay=0.1), trainee.undecayed())
    for ours, theirs in ((free, want[0]), (kept, want[1])):
        assert [*map(id, ours["params"])] == [*map(id, theirs["params"])]


@pytest.mark.parametrize(
    ("name", "spared"),
    [("botnet26t_256", "pos_embed"), ("visformer_tiny", "pos_embed"), ("xcit_nano_12_p16_224", "temp")],
)
def test_where_timm_decays_more(name: str, spared: str) -> None:
    """What `groups` says of the difference."""
    timm = pytest.importorskip("timm")
    from timm.optim import param_groups_weight_decay

    with torch.device("meta"):
        network = timm.create_model(name, num_classes=3)
    said = getattr(network, "no_weight_decay", set)()
    theirs = {id(p) for p in param_groups_weight_decay(network, 0.1, no_weight_decay_list=said)[0]["params"]}
    trainee = Trainee(network, nn.Identity(), ClassTraining())
    _, free = groups(trainee.named_parameters(), Recipe(decay="matrices", weight_decay=0.1), trainee.undecayed())
    names = {id(p): n for n, p in network.named_parameters()}
    ours = {id(p) for p in free["params"]}
    assert theirs < ours and all(spared in names[key] for key in ours - theirs)


def test_training_asks_the_network_what_decays(monkeypatch: pytest.MonkeyPatch) -> None:
    """A class of the user's own may say it too, with wildcards."""

    class Own(Tokens):
        def no_weight_decay(self) -> set[str]:
            return {"patch_*.weight"}

    def stopped(named: Any, recipe: Recipe, device: torch.device, undecayed: Any) -> None:
        raise DistilleryError(str([len(group["params"]) for group in groups(named, recipe, undecayed)]))

    monkeypatch.setattr(loop, "make_optimizer", stopped)
    objective = build(Method(objective="ce"), Context(5, torch.zeros(1), Outputs(torch.zeros(1, 5))))
    trainee = Trainee(Own(), objective, ClassTraining())  # type: ignore[arg-type]
    with pytest.raises(DistilleryError, match=r"\[1, 8\]"):
        loop.fit(trainee, SimpleNamespace(device=CPU), None, Recipe(decay="matrices"), 0)  # type: ignore[arg-type]


def test_decay_alone_moves_only_what_decays() -> None:
    model = Tokens()
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    recipe = Recipe(lr=0.1, decay="matrices", weight_decay=0.5, optimizer={"name": "adamw"})
    optimizer = make_optimizer(list(model.named_parameters()), recipe, CPU)
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert moved == {"patch_embed.weight", "head.weight"}
    assert torch.allclose(model.head.weight, before["head.weight"] * (1 - 0.1 * 0.5))


OWN = """
import torch
from distillery.recipe.base import Optimizer, Schedule

class Averaged(Optimizer):
    def build(self, groups, lr):
        return torch.optim.NAdam(groups, lr=lr)
    starts = {"mu_product": 1.0}

class Counting(Optimizer):
    def build(self, groups, lr):
        return Count(groups, dict(lr=lr))

class Count(torch.optim.SGD):
    def __init__(self, groups, defaults):
        super().__init__(groups, **defaults)
    def step(self):
        for p in self.param_groups[0]["params"]:
            self.state[p]["n"] = 1

class Hidden(Optimizer):
    def build(self, groups, lr):
        return Grow(groups, dict(lr=lr))

class Grow(Count):
    def step(self):
        self.param_groups[0]["dampening"] = 0.5

class Failing(Optimizer):
    def build(self, groups, lr):
        raise ValueError("no such thing")

class Constant(Schedule):
    def curve(self, at):
        return self.recipe.lr
"""


def test_an_optimizer_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(OWN)

    def recipe(name: str) -> Recipe:
        return Recipe(lr=0.01, weight_decay=0.0, optimizer={"name": f"{file}:{name}"})

    theirs, ours = network(), network()
    expected = learn(theirs, torch.optim.NAdam(theirs.parameters(), lr=0.01), [0.01] * 4)
    made = make_optimizer(list(ours.named_parameters()), recipe("Averaged"), CPU)
    assert all(torch.equal(a, b) for a, b in zip(learn(ours, made, [0.01] * 4), expected, strict=True))
    with pytest.raises(DistilleryError, match="optimizer Count keeps 'n' as int: make it a tensor"):
        make_optimizer(list(network().named_parameters()), recipe("Counting"), CPU)
    with pytest.raises(DistilleryError, match="optimizer Grow changes 'dampening' of its groups"):
        make_optimizer(list(network().named_parameters()), recipe("Hidden"), CPU)
    assert "optimizer Failing raises ValueError: no such thing" in refuse({"optimizer": {"name": f"{file}:Failing"}})
    assert Recipe(schedule={"name": f"{file}:Constant"}).part("schedule").rate(240, 0.5) == 0.05
    assert "is no optimizer" in refuse({"optimizer": {"name": f"{file}:Constant"}})


# --- schedules --------------------------------------------------------------------------------------------------------


def rates(recipe: Recipe, steps: int = 1) -> list[float]:
    schedule = recipe.part("schedule")
    return [schedule.rate(e, s / steps) for e in range(1, recipe.epochs + 1) for s in range(steps)]


def of_torch(make: Any, lr: float, count: int) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=lr)
    scheduler, found = make(optimizer), []
    for _ in range(count):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


lr_scheduler = torch.optim.lr_scheduler


def test_steps_are_torchs_milestones() -> None:
    recipe = Recipe(epochs=12, milestones=(4, 9), lr_decay=0.3)
    expected = of_torch(lambda o: lr_scheduler.MultiStepLR(o, [4, 9], 0.3), 0.05, 12)
    assert rates(recipe) == pytest.approx(expected, rel=1e-12)
    warm = recipe.updated({"schedule": {"name": "steps", "milestones": [4, 9], "lr_decay": 0.3, "warmup_epochs": 2}})
    assert rates(warm)[2:] == rates(recipe)[2:]
    assert rates(warm)[:2] == pytest.approx([1e-6, (0.05 + 1e-6) / 2])


@pytest.mark.parametrize("per", ["epoch", "step"])
def test_cosine_and_polynomial_are_torchs(per: str) -> None:
    count = 30 if per == "epoch" else 90
    steps = count // 30
    cosine = Recipe(epochs=30, schedule={"name": "cosine", "min_lr": 1e-3, "per": per})
    expected = of_torch(lambda o: lr_scheduler.CosineAnnealingLR(o, count, 1e-3), 0.05, count)
    assert rates(cosine, steps) == pytest.approx(expected, rel=1e-9)
    polynomial = Recipe(epochs=30, schedule={"name": "polynomial", "power": 0.9, "per": per})
    expected = of_torch(lambda o: lr_scheduler.PolynomialLR(o, count, 0.9), 0.05, count)
    assert rates(polynomial, steps) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("per", ["epoch", "step"])
def test_warm_up_then_cosine_is_torchs_sequence(per: str) -> None:
    """LinearLR, then CosineAnnealingLR over what is left (torchvision's references)."""
    steps = 1 if per == "epoch" else 4
    recipe = Recipe(epochs=20, schedule=COSINE | {"warmup_prefix": True, "per": per})

    def sequence(optimizer: torch.optim.Optimizer) -> Any:
        first = lr_scheduler.LinearLR(optimizer, 1e-4 / 0.05, total_iters=5 * steps)
        then = lr_scheduler.CosineAnnealingLR(optimizer, 15 * steps, 1e-3)
        return lr_scheduler.SequentialLR(optimizer, [first, then], [5 * steps])

    assert rates(recipe, steps) == pytest.approx(of_torch(sequence, 0.05, 20 * steps), rel=1e-9)


def timm_cosine(t: int, total: int, warmup: int, lr: float, warmup_lr: float, lr_min: float) -> float:
    """`CosineLRScheduler._get_lr` of timm 1.0 with its default `warmup_prefix=False`, one cycle."""
    if t < warmup:
        return warmup_lr + t * (lr - warmup_lr) / warmup
    return lr_min + 0.5 * (lr - lr_min) * (1 + math.cos(math.pi * t / total))


@pytest.mark.parametrize("per", ["epoch", "step"])
def test_warm_up_within_the_cosine_is_timms(per: str) -> None:
    steps = 1 if per == "epoch" else 7
    recipe = Recipe(epochs=20, schedule=COSINE | {"per": per})
    expected = [timm_cosine(t, 20 * steps, 5 * steps, 0.05, 1e-4, 1e-3) for t in range(20 * steps)]
    assert rates(recipe, steps) == pytest.approx(expected, rel=1e-12)
    if per == "epoch":  # whatever step of the epoch it is
        assert len(set(rates(recipe, 3))) == 20


# --- label smoothing --------------------------------------------------------------------------------------------------


def test_smoothing_acts_on_the_supervised_term_alone() -> None:
    labels, logits = torch.arange(8) % 5, torch.randn(8, 5)
    method = Method(objective="kd", ce_weight=0.7, plus={"dist": {}})  # type: ignore[call-arg]
    objective, plain = (build(method, context(labels, logits)) for _ in range(2))
    objective.smooth(0.1)
    given = batch(torch.randn(8, 5), logits, labels)
    terms, unsmoothed = objective(given), plain(given)
    assert {name for name, term in terms.items() if not torch.equal(term, unsmoothed[name])} == {"ce"}
    smoothed, before = objective.supervised(given)["ce"], plain.supervised(given)["ce"]
    rows = -F.log_softmax(given.student.logits, 1)
    truth = rows.gather(1, given.labels[:, None]).mean()
    assert torch.allclose(before, 0.7 * truth)
    assert torch.allclose(smoothed, 0.7 * (0.9 * truth + 0.1 * rows.mean()))


# --- averaging --------------------------------------------------------------------------------------------------------


def timm_v3(update: int, decay: float, gamma: float, power: float) -> float:
    """`ModelEmaV3.get_decay` of timm 1.0 with `use_warmup`, at a step counted from 1."""
    step = max(0, update - 1)
    return 0.0 if step <= 0 else max(min(1 - (1 + step / gamma) ** -power, decay), 0.0)


@pytest.mark.parametrize("options", [{}, {"warmup": True}, {"warmup": True, "warmup_gamma": 2.0, "warmup_power": 0.75}])
def test_the_average_is_timms(options: dict[str, Any]) -> None:
    """ModelEmaV2 (the same decay from the first weights on) and V3 with its warm-up; batch statistics too."""
    model, objective = network(), build(Method(objective="ce"), context(torch.arange(3), torch.zeros(3, 3)))
    config = Ema(decay=0.9, **options)
    average = Average(Trainee(model, objective, ClassTraining()), config)  # type: ignore[arg-type]
    expected = {k: v.clone() for k, v in model.state_dict().items()}
    optimizer = make_optimizer(list(model.named_parameters()), Recipe(), CPU)
    for update in range(1, 25):
        learn(model, optimizer, [0.1])
        average.update(update)
        decay = timm_v3(update, 0.9, config.warmup_gamma, config.warmup_power) if config.warmup else 0.9
        for name, value in model.state_dict().items():
            mean = expected[name]
            mean.copy_(decay * mean + (1 - decay) * value if mean.is_floating_point() else value)
    assert average.decay(24) == pytest.approx(0.9 if not options else min(0.9, decay))
    found = average.state_dict()
    assert all(torch.allclose(found[f"student.{k}"], v, rtol=1e-5, atol=1e-7) for k, v in expected.items())
    assert not torch.equal(found["student.0.weight"], model[0].weight)
    average.finish()
    assert all(torch.equal(v, found[f"student.{k}"]) for k, v in model.state_dict().items())
    assert set(average.tested()) == {"", "raw_"}
    raw = Average(Trainee(model, objective, ClassTraining()), Ema(student="raw"))  # type: ignore[arg-type]
    assert set(raw.tested()) == {"", "average_"} and raw.tested()[""].student is model


# --- what is refused --------------------------------------------------------------------------------------------------


def params(**recipe: Any) -> dict[str, Any]:
    content: dict[str, Any] = small_study.digits()
    content["methods"] = {m: content["methods"][m] for m in ("ce", "kd")}
    content["recipe"] |= {"epochs": 20, "milestones": [12, 16, 18]} | recipe
    return content


def refuse(recipe: dict[str, Any], method: dict[str, Any] | None = None) -> str:
    """What is said of a method's recipe over that of the digits study (SGD with milestones)."""
    content = params()
    content["methods"]["kd"] |= (method or {}) | {"recipe": recipe}
    with pytest.raises(DistilleryError) as caught:
        rehearse(check(content))
    assert str(caught.value).count("\n") == 0
    return str(caught.value)


ADAMW = {"name": "adamw"}
REFUSED: dict[str, dict[str, Any]] = {
    "momentum: has no effect with optimizer 'adamw'": {"optimizer": ADAMW, "momentum": 0.9},
    "milestones: has no effect with schedule 'cosine'": {"schedule": {"name": "cosine"}, "milestones": [3]},
    "lr_decay: has no effect with schedule 'polynomial'": {"schedule": {"name": "polynomial"}, "lr_decay": 0.2},
    "momentum: given twice, here and in optimizer": {"optimizer": {"name": "sgd", "momentum": 0.9}, "momentum": 0.8},
    "optimizer: unknown optimizer 'adamww': did you mean 'adamw'?": {"optimizer": {"name": "adamww"}},
    "schedule: unknown schedule 'cosin': did you mean 'cosine'?": {"schedule": {"name": "cosin"}},
    "optimizer: unknown key 'beta': did you mean 'betas'?": {"optimizer": ADAMW | {"beta": 0.9}},
    "optimizer.betas.1: less than 1, not 2": {"optimizer": ADAMW | {"betas": [0.9, 2]}},
    "schedule.warmup_epochs: 20 leave nothing of 20 epochs": {"schedule": {"name": "cosine", "warmup_epochs": 20}},
    "schedule.warmup_lr: has no effect without warmup_epochs": {"schedule": {"name": "cosine", "warmup_lr": 0.001}},
    "schedule.warmup_lr: 0.02 is not below lr, 0.02": {
        "schedule": {"name": "cosine", "warmup_epochs": 1, "warmup_lr": 0.02}
    },
    "schedule.min_lr: 0.5 is not below lr, 0.02": {"schedule": {"name": "cosine", "min_lr": 0.5}},
    "schedule.warmup_prefix: has no effect": {"schedule": {"name": "cosine", "warmup_prefix": True}},
    "schedule.per: has no effect without warmup_epochs": {
        "schedule": {"name": "steps", "per": "step", "milestones": [3]}
    },
    "schedule.milestones: 30 is beyond the last epoch, 20": {"schedule": {"name": "steps", "milestones": [30]}},
    "lr_decay: has no effect without milestones": {"milestones": [], "lr_decay": 0.5},
    "ema.decay: 0 averages nothing: say `ema: null`": {"ema": {"decay": 0}},
    "optimizer.nesterov: needs a momentum": {"optimizer": {"name": "sgd", "momentum": 0, "nesterov": True}},
    "decay: has no effect with weight_decay 0": {"decay": "matrices", "weight_decay": 0},
    "ema.warmup_power: has no effect without warmup": {"ema": {"warmup_power": 0.5}},
    "recipe.clip: greater than 0, not 0": {"clip": 0},
    "recipe.label_smoothing: less than 1, not 1": {"label_smoothing": 1},
}


@pytest.mark.parametrize("sentence", REFUSED)
def test_contradictions_are_refused_in_one_sentence(sentence: str) -> None:
    assert sentence in refuse(REFUSED[sentence])


def test_smoothing_is_refused_where_it_has_no_meaning() -> None:
    smooth = {"label_smoothing": 0.1}
    assert "label_smoothing: has no effect with ce_weight 0" in refuse(smooth, {"ce_weight": 0})
    own = {"objective": "label_revision"}
    content = params()
    content["methods"]["kd"] = own | {"recipe": smooth}
    with pytest.raises(DistilleryError, match="label_smoothing: label_revision has a supervised term of its own"):
        rehearse(check(content))
    content["methods"]["kd"] = own
    content["methods"]["ce"]["recipe"] = smooth
    rehearse(check(content))


# --- identity ---------------------------------------------------------------------------------------------------------


def values(content: dict[str, Any], job: str = "distill") -> dict[str, Any]:
    plan = resolve(check(content))
    return {" ".join(j.keys): j.values for j in plan if j.stage == job}


def test_a_default_written_out_is_the_same_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    plain = values(params())
    flat = ("momentum", "nesterov", "milestones", "lr_decay")
    content = params(decay="all", clip=None, label_smoothing=0.0, ema=None)
    assert values(content) == plain
    blocks = {
        "optimizer": {"name": "sgd", "momentum": 0.9, "nesterov": False},
        "schedule": {
            "name": "steps",
            "milestones": content["recipe"]["milestones"],
            "warmup_epochs": 0,
            "per": "epoch",
        },
    }
    content = params(**blocks)
    content["recipe"] = {k: v for k, v in content["recipe"].items() if k not in flat}
    teacher = content["teachers"]["resnet20_w8"]
    teacher["recipe"] = {"schedule": {"name": "steps"}} | teacher["recipe"]
    assert values(content) == plain
    assert values(content, "teacher") == values(params(), "teacher")
    assert (
        not {"optimizer", "schedule", "decay", "clip", "label_smoothing", "ema"}
        & next(iter(plain.values()))["recipe"].keys()
    )
    short = params()
    short["methods"]["kd"]["recipe"] = {"optimizer": ADAMW, "schedule": {"name": "cosine"}, "ema": {}}
    long = params()
    long["methods"]["kd"]["recipe"] = {
        "optimizer": ADAMW | {"betas": [0.9, 0.999], "eps": 1e-8},
        "schedule": {"name": "cosine", "min_lr": 0, "warmup_epochs": 0.0, "warmup_lr": 1e-6},
        "ema": {"decay": 0.9999, "student": "average"},
    }
    assert values(short) == values(long) != plain


def test_an_effective_recipe_is_read_back_as_itself() -> None:
    for recipe in (
        Recipe(),
        Recipe(optimizer={"name": "sgd", "momentum": 0.5}, schedule={"name": "steps", "warmup_epochs": 2}, clip=2.0),
        Recipe(optimizer=ADAMW, schedule=COSINE, ema={"warmup": True}, decay="matrices", label_smoothing=0.1),
    ):
        again = Recipe.model_validate(recipe.effective())
        assert contradictions(again) == []
        assert again.effective() == recipe.effective()


def test_an_override_replaces_all_that_was_said_of_a_part() -> None:
    base = Recipe(epochs=10, momentum=0.5, nesterov=True, milestones=(3,), lr_decay=0.5)
    assert base.updated({"epochs": 12}).effective() == base.effective() | {"epochs": 12}
    modern = base.updated({"optimizer": ADAMW, "schedule": {"name": "cosine"}})
    assert contradictions(modern) == []
    assert modern.updated({"lr": 0.1}).effective() == modern.effective() | {"lr": 0.1}
    assert contradictions(modern.updated({"momentum": 0.9})) == ["momentum: has no effect with optimizer 'adamw'"]
    assert modern.updated({"schedule": {"name": "steps"}, "milestones": [7]}).effective()["milestones"] == [7]


def test_an_override_of_augmentation_or_ema_replaces_the_keys_it_names() -> None:
    jitter = {"name": "color_jitter"}
    base = Recipe(augmentation={"pad": 1, "flip": False, "then": [jitter]}, ema={"decay": 0.5, "warmup": True})
    seeded = base.updated({"augmentation": {"view_seed": 3}, "ema": {"student": "raw"}})
    assert seeded.augmentation.model_dump() == base.augmentation.model_dump() | {"view_seed": 3}
    assert seeded.ema == Ema(decay=0.5, warmup=True, student="raw")
    back = seeded.updated({"augmentation": {"view_seed": None, "then": []}})
    assert back.augmentation.model_dump() == {"pad": 1, "flip": False}
    assert base.updated({"ema": None}).ema is None
    assert base.updated({"ema": None}, {"ema": {"student": "raw"}}).ema == Ema(student="raw"), "begun anew"
    assert Recipe().updated({"augmentation": {"pad": 1}}).augmentation.flip
    with pytest.raises(ValueError, match="pda"):
        base.updated({"augmentation": {"pda": 1}})
    pairs = {"p": {"recipe": {"augmentation": {"pad": 2}, "ema": {"student": "raw"}}}}
    method = Method(objective="kd", recipe={"augmentation": {"view_seed": 3}, "ema": None}, pairs=pairs)
    found = base.updated(*method.recipes("p"))
    assert found.augmentation.model_dump() == base.augmentation.model_dump() | {"view_seed": 3, "pad": 2}
    assert found.ema == Ema(student="raw"), "begun anew after null"
    method = Method(objective="kd", recipe={"momentum": 0.8}, pairs={"p": {"recipe": {"optimizer": ADAMW}}})
    assert contradictions(Recipe().updated(*method.recipes("p"))) == []


def test_the_code_of_a_job_is_that_of_its_own_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(OWN)
    content = params()
    content["methods"]["kd"]["recipe"] = {"optimizer": ADAMW, "schedule": {"name": "mine.py:Constant"}}
    plan = resolve(check(content))

    def modules(stage: str, *keys: str) -> set[str]:
        (job,) = [j for j in plan if j.stage == stage and j.keys[: len(keys)] == keys]
        return {c.module for c in components(stage, job.values)}

    pair = next(iter(content["pairs"]))
    usual, modern = {"distillery.recipe.sgd", "distillery.recipe.steps"}, {"distillery.recipe.adamw", "mine.py"}
    assert usual <= modules("teacher") and not modern & modules("teacher")
    assert usual <= modules("distill", pair, "ce") and not modern & modules("distill", pair, "ce")
    assert modern <= modules("distill", pair, "kd") and not usual & modules("distill", pair, "kd")
    assert not (usual | modern) & modules("evaluate", pair, "kd")
    assert Path("mine.py") in named_files(check(content))
    followed: set[str] = set()
    parse = code._module
    monkeypatch.setattr(code, "_module", lambda name: followed.add(name) or parse(name))
    code._closure.cache_clear()
    code.fingerprint("distill", next(j.values for j in plan if j.keys[:2] == (pair, "ce") and j.stage == "distill"))
    parts = {name for name in followed if name.startswith("distillery.recipe.") and code._file(name)}
    assert parts == usual | {"distillery.recipe.base"}  # an edit to another one changes nothing


def test_recipes_are_compared_whole() -> None:
    ours = described(Recipe(optimizer=ADAMW, schedule=COSINE, clip=1.0, precision="bfloat16").effective())
    usual = described(Recipe().effective())
    assert described({}) == usual
    assert differing(ours, usual) == ["clip", "optimizer", "schedule"]
    other = described(Recipe(optimizer=ADAMW | {"betas": [0.9, 0.9]}, schedule=COSINE, clip=1.0).effective())
    assert differing(other, ours) == ["optimizer.betas"]
    warm = described(Recipe(schedule={"name": "steps", "warmup_epochs": 3}, nesterov=True).effective())
    assert set(differing(warm, usual)) == {
        "nesterov",
        "schedule.warmup_epochs",
        "schedule.warmup_lr",
        "schedule.per",
    }
