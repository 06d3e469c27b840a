"""The loss of a student, put together by hand."""

from dataclasses import replace

import pytest
import tokprune_kernels as tk
import torch
from tokprune_train.data.joining import UNLABELLED, label_by_teacher
from tokprune_train.importance import run_scored
from tokprune_train.objectives.cost import FlopsCost
from tokprune_train.objectives.distillation import importance_distillation, prediction_distillation, state_distillation, token_distillation
from tokprune_train.objectives.gates import FIRST_ONLY, RankGates
from tokprune_train.objectives.ranking import ranking_distillation
from tokprune_train.pruners.base import Constraint
from tokprune_train.pruners.ltp import LearnedThresholds
from tokprune_train.pruners.top import LearnedKeepRatios
from tokprune_train.states import pooled_states
from tokprune_train.student import Student, Teaching
from tokprune_train.teacher import teach
from torch import nn
from torch.nn import functional
from transformers import BertConfig, BertForTokenClassification

from .needles import COLLATOR, needle_rows, tiny_model


class Noted:
    """A pruner's calls, in order."""

    masks, score_denominator = "attention", "kept"

    def __init__(self):
        self.calls = []

    def begin(self, step, progress):
        self.calls.append(("begin", step, progress))

    def parameters(self):
        return []

    def __call__(self, layer, importance, weights, cu_seqlens):
        self.calls.append(("layer", layer))

    def penalty(self, progress, teacher_importance):
        self.calls.append(("penalty", progress, teacher_importance))
        return torch.tensor(0.25)


@pytest.fixture
def batch():
    batch = COLLATOR(needle_rows(4, seed=1))
    generator = torch.Generator().manual_seed(0)
    batch["teacher_logits"] = torch.randn(4, 4, generator=generator)
    batch["teacher_importance"] = torch.rand(batch["input_ids"].shape, generator=generator) * batch["attention_mask"]
    return batch


def logits_of(model, batch):
    return model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits


def test_task_loss_alone(batch):
    model = tiny_model()
    output = Student(model)(**batch)
    logits = logits_of(model, batch)
    torch.testing.assert_close(output["logits"], logits)
    torch.testing.assert_close(output["loss"], functional.cross_entropy(logits, batch["labels"]))


def test_parts_of_the_loss(batch):
    """0.7 of the task, 0.3 of the teacher's answers, 0.5 of the distance to its states, twice that of its layers, and the
    pruner's penalty as it is."""
    model, pruner = tiny_model(), Noted()
    generator = torch.Generator().manual_seed(1)
    batch["teacher_state"] = torch.randn(4, model.config.hidden_size, generator=generator)
    batch["teacher_layers"] = torch.randn(4, 3, model.config.hidden_size, generator=generator).half()
    student = Student(model, None, Teaching(answers=0.3, states=0.5, layers=2.0, temperature=2.0))
    student.pruner = pruner
    student.step, student.progress = 7, 0.5
    loss = student(**batch)["loss"]
    with pooled_states(model) as states:
        hidden = model(batch["input_ids"], attention_mask=batch["attention_mask"], output_hidden_states=True)
    logits = hidden.logits
    task = functional.cross_entropy(logits, batch["labels"])
    taught = prediction_distillation(logits, batch["teacher_logits"], 2.0)
    apart = state_distillation(states[-1], batch["teacher_state"])
    layers = [state_distillation(hidden.hidden_states[1 + i][:, 0], batch["teacher_layers"][:, i].float()) for i in range(3)]
    torch.testing.assert_close(loss, 0.7 * task + 0.3 * taught + 0.5 * apart + 2.0 * sum(layers) / 3 + 0.25)
    loss.backward()
    assert all(p.grad is not None for p in model.base_model.pooler.parameters())
    assert not model.base_model.pooler._forward_hooks, "nothing stays on the model"
    *before, (_, progress, importance) = pruner.calls
    assert before == [("begin", 7, 0.5), ("layer", 0), ("layer", 1), ("layer", 2)] and progress == 0.5
    packed = [values[: int(mask.sum())] for values, mask in zip(batch["teacher_importance"], batch["attention_mask"])]
    assert torch.equal(importance, torch.cat(packed)), "the teacher's importance comes packed"


def test_importance_is_taught_under_soft_pruning(batch):
    """Of the layers but the last, among the tokens of at least half their weight; the pruner decides as it would have."""

    class Halves(Noted):
        def __call__(self, layer, importance, weights, cu_seqlens):
            self.calls.append(("layer", layer, importance, weights))
            self.cu_seqlens = cu_seqlens
            return weights * torch.where(torch.arange(len(weights)) % 3 == layer, 0.4, 0.9)

    model, pruner = tiny_model(), Halves()
    batch["teacher_mean_importance"] = batch.pop("teacher_importance")
    student = Student(model, None, Teaching(importance=0.5))
    student.pruner = pruner
    loss = student(**batch)["loss"]
    (_, *layers, _) = pruner.calls
    taught = batch["teacher_mean_importance"][batch["attention_mask"] != 0]
    alive = [torch.ones_like(taught, dtype=torch.bool), torch.arange(len(taught)) % 3 != 0]
    apart = [
        importance_distillation(importance / weights.clamp(min=0.5), taught, there, pruner.cu_seqlens)
        for (_, _, importance, weights), there in zip(layers, alive)
    ]
    assert len(layers) == 3 and all(one.item() > 0 for one in apart)
    logits = model(batch["input_ids"], attention_mask=batch["attention_mask"], soft_pruning=pruner).logits
    torch.testing.assert_close(loss, functional.cross_entropy(logits, batch["labels"]) + 0.5 * sum(apart) / 2 + 0.25)


def test_less_weight_is_not_less_importance(batch):
    """Where attention looks alike at every token, a token of less weight is not one that the model thinks less of."""
    lowered = torch.linspace(0.55, 0.95, int(batch["attention_mask"].sum())).requires_grad_()

    class Lowers(Noted):
        def __call__(self, layer, importance, weights, cu_seqlens):
            return weights * lowered if layer == 0 else None

    model = tiny_model()
    for name, parameter in model.named_parameters():
        if "attention.self.query" in name:
            nn.init.zeros_(parameter)
    places = batch["attention_mask"].flatten().nonzero().flatten()
    _, scored = run_scored(model, Lowers(), {name: batch[name] for name in ("input_ids", "attention_mask")}, places)
    layer = scored[1]
    assert layer.importance.requires_grad and layer.alive.all()
    importance_distillation(layer.importance, torch.ones_like(lowered), layer.alive, layer.cu_seqlens).backward()
    assert lowered.grad.abs().max() < 1e-7


def test_teaching_importance_does_not_drive_the_pruner(batch):
    """Thresholds get the gradients that they have without it, but for rounding; the weights learn from it."""
    batch["teacher_mean_importance"] = batch.pop("teacher_importance")
    gradients = []
    for weight in (0.0, 50.0):
        model = tiny_model()
        pruner = LearnedThresholds([0.03, 0.05, 0.06], unit=0.05, temperature=(0.3, 0.3), regularizer=0.1)
        student = Student(model, pruner, Teaching(importance=weight))
        loss = student(**batch)["loss"]
        loss.backward()
        gradients.append((pruner.delta.grad, model.base_model.encoder.layer[1].attention.self.query.weight.grad))
    assert gradients[0][0].abs().min() > 1e-5
    torch.testing.assert_close(gradients[1][0], gradients[0][0], rtol=1e-3, atol=1e-6)
    assert (gradients[1][1] - gradients[0][1]).norm() > 10 * gradients[0][1].norm()
    assert float(loss.detach()) > 10, "the loss itself has all of it"


@pytest.mark.parametrize("source", ["attention", "saliency"])
@pytest.mark.parametrize(("position", "first"), [("before_layer", 1.0), ("after_attention", 0.6)])
def test_importance_is_taught_under_removal(batch, position, first, source):
    """Of the tokens that are left in each layer but the last; it reaches what makes the scores."""
    model = tiny_model()
    model.set_pruning(tk.PruningConfig.top([first, 0.6, 0.5], position=position))
    teaching = Teaching(importance=0.5, importance_from=source)
    batch[teaching.importance_key] = batch.pop("teacher_importance")
    loss = Student(model, teaching=teaching)(**batch)["loss"]
    present = batch["attention_mask"] != 0
    output = model(batch["input_ids"], attention_mask=batch["attention_mask"], output_pruning=True)
    told = [batch[teaching.importance_key][present], functional.pad(present.sum(dim=1).cumsum(0), (1, 0))]
    importance, alive = output.pruning.importance, output.pruning.kept_mask
    assert alive[1].sum() < present.sum()
    apart = [importance_distillation(importance[layer][present], told[0], alive[layer][present], told[1]) for layer in (0, 1)]
    torch.testing.assert_close(loss, functional.cross_entropy(output.logits, batch["labels"]) + 0.5 * sum(apart) / 2)
    sum(apart).backward()
    for layer in (0, 1):
        query = model.base_model.encoder.layer[layer].attention.self.query
        assert query.weight.grad.abs().max() > 0


@pytest.mark.parametrize(("position", "first"), [("before_layer", 1.0), ("after_attention", 0.6)])
def test_tokens_are_taught_under_removal(batch, position, first):
    """Of those that enter each layer but the first; the teacher is neither trained nor part of what is saved."""
    model, teacher = tiny_model(), tiny_model()
    with torch.no_grad():
        teacher.base_model.embeddings.word_embeddings.weight.mul_(-0.5)
    model.set_pruning(tk.PruningConfig.top([first, 0.6, 0.5], position=position))
    student = Student(model, teaching=Teaching(tokens=0.5), teacher=teacher.train())
    loss = student(**batch)["loss"]
    present = batch["attention_mask"] != 0
    texts, bounds = {name: batch[name] for name in ("input_ids", "attention_mask")}, functional.pad(present.sum(dim=1).cumsum(0), (1, 0))
    output = model(**texts, output_pruning=True, output_hidden_states=True)
    dense = teacher(**texts, output_hidden_states=True).hidden_states
    alive = output.pruning.kept_mask
    assert alive[2].sum() < alive[1].sum() <= present.sum()
    apart = [token_distillation(output.hidden_states[i][present], dense[i][present], alive[i][present], bounds) for i in (1, 2)]
    assert all(one.item() > 0.01 for one in apart)
    torch.testing.assert_close(loss, functional.cross_entropy(output.logits, batch["labels"]) + 0.5 * sum(apart) / 2)
    loss.backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert set(student.state_dict()) == {f"model.{name}" for name in model.state_dict()}


def test_a_student_is_not_taught_what_it_is_already(batch):
    """Unpruned, with the teacher's weights, its tokens' states are the teacher's."""
    plain = Student(tiny_model())(**batch)["loss"]
    torch.testing.assert_close(Student(tiny_model(), teaching=Teaching(tokens=9.0), teacher=tiny_model())(**batch)["loss"], plain)


def test_a_teacher_beside_says_what_it_says_beforehand():
    """The same loss from rows that it spoke on as from rows that it did not, one of them a text that only it can label."""
    rows, teacher = needle_rows(6, seed=2), tiny_model(seed=1)
    taught = Teaching(answers=0.4, states=0.5, layers=2.0, tokens=3.0, importance=4.0, temperature=2.0)
    rows[2][UNLABELLED] = True
    batch = COLLATOR(rows)
    heard = Student(tiny_model(), Noted(), taught, teacher)
    loss = heard(**batch)["loss"]
    teach(teacher, rows, COLLATOR, {*taught.wanted, "teacher_importance"})
    rows[2]["labels"] = 9  # read by nobody
    label_by_teacher(rows, False)
    assert rows[2]["labels"] == int(rows[2]["teacher_logits"].argmax())
    told = COLLATOR(rows)
    before = Student(tiny_model(), Noted(), replace(taught, tokens=0.0))
    tokens = Student(tiny_model(), None, Teaching(tokens=3.0), teacher)(**told)["loss"] - Student(tiny_model())(**told)["loss"]
    torch.testing.assert_close(loss, before(**told)["loss"] + tokens, rtol=1e-4, atol=1e-5)  # its layers come in float16 there
    assert heard.pruner.calls[-1][0] == "penalty"
    torch.testing.assert_close(heard.pruner.calls[-1][2], before.pruner.calls[-1][2])


@pytest.mark.parametrize("tokens", [0.0, 50.0])
def test_teaching_tokens_does_not_drive_the_pruner(batch, tokens):
    """Thresholds get the gradients that they have without it, but for rounding; the weights learn from it."""
    teacher = tiny_model()
    with torch.no_grad():
        teacher.base_model.embeddings.word_embeddings.weight.mul_(-0.5)
    model, pruner = tiny_model(), LearnedThresholds([0.03, 0.05, 0.06], unit=0.05, temperature=(0.3, 0.3), regularizer=0.1)
    student = Student(model, pruner, Teaching(tokens=tokens), teacher)
    student(**batch)["loss"].backward()
    plain_model, plain = tiny_model(), LearnedThresholds([0.03, 0.05, 0.06], unit=0.05, temperature=(0.3, 0.3), regularizer=0.1)
    Student(plain_model, plain)(**batch)["loss"].backward()
    torch.testing.assert_close(pruner.delta.grad, plain.delta.grad, rtol=1e-3, atol=1e-6)
    moved = (model.base_model.encoder.layer[0].output.dense.weight.grad - plain_model.base_model.encoder.layer[0].output.dense.weight.grad).norm()
    assert bool(moved > 1) == bool(tokens)


def test_penalty_of_thresholds(batch):
    """lambda times the sum over the layers of the mean mask, or the Lagrangian terms of what the masks let pass."""
    model = tiny_model()
    cost = FlopsCost(model.config, "after_attention")
    plain = LearnedThresholds([0.04, 0.05, 0.06], unit=0.05, regularizer=0.1)
    held = LearnedThresholds([0.04, 0.05, 0.06], unit=0.05, constraint=Constraint(cost, 0.4, ramp=0.5))
    with torch.no_grad():
        held.lagrangian.linear.fill_(-2.0)
        held.lagrangian.quadratic.fill_(3.0)
    losses = {}
    for name, pruner in (("plain", plain), ("held", held)):
        student = Student(model, pruner)
        student.progress = 0.25
        output = student(**batch)
        losses[name] = output["loss"] - functional.cross_entropy(output["logits"], batch["labels"])
    lengths = batch["attention_mask"].sum(dim=1)
    alive = torch.stack([torch.stack([m.sum() for m in mask.split(lengths.tolist())]) for mask in plain._alive])
    torch.testing.assert_close(losses["plain"], 0.1 * (alive / lengths).mean(dim=1).sum(), rtol=1e-4, atol=1e-6)
    saved = 1 - cost(torch.cat([lengths[None].float(), alive]), lengths.float())
    excess = saved - 0.2  # half of the ramp
    expected = -2.0 * excess + 3.0 * excess**2
    torch.testing.assert_close(losses["held"].double(), expected, rtol=1e-4, atol=1e-6)
    metrics = held.metrics(0.25)
    assert metrics["saved"] == pytest.approx(float(saved.detach()), rel=1e-4) and metrics["target"] == pytest.approx(0.2)


def test_penalty_of_keep_ratios(batch):
    """The Lagrangian terms, and alpha * max(1%, 1 - ramped target) * the ranking losses of the taught layers."""
    model = tiny_model()
    pruner = LearnedKeepRatios(
        RankGates(3, [1, 2], coarse="on"), Constraint(FlopsCost(model.config, "before_layer"), 0.4), ranking=0.5, ranked_layers=[1]
    )
    scores = []
    ranked = pruner.forward
    pruner.forward = lambda layer, importance, *rest: scores.append(importance) or ranked(layer, importance, *rest)
    for progress, share in ((0.0, 1.0), (0.125, 0.75), (0.9, 0.01)):
        scores.clear()
        student = Student(model, pruner)
        student.progress = progress
        output = student(**batch)
        added = output["loss"] - functional.cross_entropy(output["logits"], batch["labels"])
        # Both multipliers are 0 at first: what is left is the ranking.
        cu_seqlens = functional.pad(batch["attention_mask"].sum(dim=1).cumsum(0), (1, 0))
        teacher = batch["teacher_importance"][batch["attention_mask"] != 0]
        expected = 0.5 * share * ranking_distillation(scores[1], teacher, cu_seqlens)
        torch.testing.assert_close(added, expected.to(added.dtype), rtol=1e-4, atol=1e-6)


def test_thresholds_do_not_fall_below_zero():
    """There they would prune nothing either, and be out of reach of every gradient."""
    pruner = LearnedThresholds([0.01, 0.02], unit=0.04)
    with torch.no_grad():
        pruner.delta.copy_(torch.tensor([-1.0, -0.25]))
    pruner.after_step()
    assert pruner.thresholds.tolist() == pytest.approx([0.0, 0.01], abs=1e-9)
    assert pruner.pruning().values == pytest.approx((0.0, 0.01), abs=1e-9)


def test_temperature_falls_geometrically():
    pruner = LearnedThresholds([0.01], unit=0.04, temperature=(0.4, 0.1))
    seen = []
    for progress in (0.0, 0.5, 1.0):
        pruner.begin(0, progress)
        seen.append(pruner.temperature)
    assert seen == pytest.approx([0.4, 0.2, 0.1])


def test_gates_of_a_step_are_the_same_wherever_it_is_run():
    """A resumed training, and every process, samples what the uninterrupted one would have."""
    constraint = Constraint(FlopsCost(tiny_model().config, "before_layer"), 0.4)
    a, b, other = (LearnedKeepRatios(RankGates(3, [1, 2], coarse="on"), constraint, seed=seed) for seed in (1, 1, 2))
    for pruner in (a, b, other):
        with torch.no_grad():
            pruner.gates.fine.zero_()
        pruner.begin(5, 0.0)
    assert torch.equal(a._sample.fine, b._sample.fine)
    assert not torch.equal(a._sample.fine, other._sample.fine)
    b.begin(6, 0.0)
    assert not torch.equal(a._sample.fine, b._sample.fine)


def test_what_is_missing_is_named(batch):
    del batch["teacher_logits"]
    with pytest.raises(ValueError, match="distillation needs teacher_logits"):
        Student(tiny_model(), teaching=Teaching(answers=0.5))(**batch)
    with pytest.raises(ValueError, match="distillation needs teacher_state"):
        Student(tiny_model(), teaching=Teaching(states=0.5))(**batch)
    with pytest.raises(ValueError, match="distillation needs teacher_layers"):
        Student(tiny_model(), teaching=Teaching(layers=0.5))(**batch)
    with pytest.raises(ValueError, match="distillation needs teacher_mean_importance"):
        Student(tiny_model(), teaching=Teaching(importance=0.5))(**batch)
    with pytest.raises(ValueError, match="distillation needs teacher_saliency"):
        Student(tiny_model(), teaching=Teaching(importance=0.5, importance_from="saliency"))(**batch)
    with pytest.raises(ValueError, match="token distillation needs the dense teacher itself"):
        Student(tiny_model(), teaching=Teaching(tokens=0.5))
    with pytest.raises(ValueError, match="importance_from must be one of attention, saliency, got 'gradients'"):
        Teaching(importance=0.5, importance_from="gradients")
    del batch["teacher_importance"]
    constraint = Constraint(FlopsCost(tiny_model().config, "before_layer"), 0.4)
    pruner = LearnedKeepRatios(RankGates(3, [1, 2]), constraint, ranking=0.1, ranked_layers=[1])
    with pytest.raises(ValueError, match="ranking distillation needs teacher_importance"):
        Student(tiny_model(), pruner)(**batch)


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_share_of_the_teacher(share):
    with pytest.raises(ValueError, match=r"distillation must be in \[0, 1\]"):
        Teaching(answers=share)


def test_weight_of_the_states():
    with pytest.raises(ValueError, match="state distillation must be a weight of at least 0"):
        Teaching(states=-1.0)


def test_states_need_a_pooler():
    with pytest.raises(ValueError, match="BertForTokenClassification has no pooler"):
        with pooled_states(BertForTokenClassification(BertConfig(num_hidden_layers=1, hidden_size=24, vocab_size=8))):
            pass


def test_unit_of_thresholds():
    with pytest.raises(ValueError, match="unit must be positive"):
        LearnedThresholds([0.1], unit=0.0)


def test_exported_pruning_is_the_methods():
    ltp = LearnedThresholds([0.01, 0.02], unit=0.04, score_denominator=128).pruning()
    assert ltp == tk.PruningConfig.ltp(ltp.values, score_denominator=128)
    assert ltp.values == pytest.approx((0.01, 0.02))
    gates = RankGates(3, [1, 2], coarse="on")
    top = LearnedKeepRatios(gates, Constraint(FlopsCost(tiny_model().config, "before_layer"), 0.4)).pruning()
    assert top == tk.PruningConfig.top(gates.keep_ratios(), count_first=False)


def test_tokens_that_leave_at_once_change_no_answer():
    """ToP's keep ratios a layer earlier, after the attention that ranks: the same logits, for fewer FLOPs."""
    model = tiny_model()
    rows = needle_rows(9, seed=3)
    batch = COLLATOR(rows)
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    gates = RankGates(3, [1, 2], coarse="on")
    with torch.no_grad():
        gates.fine.copy_(torch.linspace(3, -3, 10).repeat(2, 1))
    answers, flops = {}, {}
    for position in ("before_layer", "after_attention"):
        pruner = LearnedKeepRatios(gates, Constraint(FlopsCost(model.config, position), 0.4), position=position)
        model.set_pruning(pruner.pruning())
        with torch.no_grad():
            output = model.eval()(**inputs, output_pruning=True)
        answers[position] = output.logits
        flops[position] = float(tk.flops.encoder_flops(output.pruning.kept_lengths, model.config).sum())
        assert output.pruning.kept_lengths[2].sum() < batch["attention_mask"].sum()
        # What the constraint counts is what that removal takes, but for whole tokens.
        pruner.begin(0, 0.0)
        pruner._cu_seqlens = functional.pad(batch["attention_mask"].sum(dim=1).cumsum(0), (1, 0))
        pruner.penalty(0.0, None)
        dense = float(tk.flops.dense_flops(batch["attention_mask"].sum(dim=1), model.config).sum())
        assert 1 - pruner.saved == pytest.approx(flops[position] / dense, abs=0.05)
    torch.testing.assert_close(answers["after_attention"], answers["before_layer"])
    assert flops["after_attention"] < 0.9 * flops["before_layer"]


@pytest.mark.parametrize(
    ("position", "ratios"), [("before_layer", [1.0, 0.7, 0.4]), ("after_attention", [0.7, 0.4, FIRST_ONLY])]
)
def test_gates_can_start_from_ratios(position, ratios):
    """What comes out of them untrained is what went in, and about that much is expected to stay."""
    pruner = LearnedKeepRatios(RankGates(3, [1, 2], coarse="on"), Constraint(FlopsCost(tiny_model().config, position), 0.4), position=position)
    start = tk.PruningConfig.top(ratios, position=position)
    pruner.start_from(start)
    assert pruner.pruning().keep_ratios == pytest.approx(start.keep_ratios)
    assert pruner.gates.keep_probability().tolist() == pytest.approx([0.7, 0.4], abs=0.03)
    assert (pruner.gates.fine.diff(dim=1) <= 0).all()
    pruner.gates.start_at_([1.0, 0.5])
    assert pruner.gates.keep_probability()[0] > 0.95
