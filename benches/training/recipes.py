"""The trainings of `train_all.py`: for each data set a dense model, and what is pruned from it.

Every line is arguments of `tokprune train`; --model, --data, --output and --seed are added. A pruned training starts from
the dense model of the same seed. Learned methods are asked for a little more than the factor in their name: the constraint is
on expected lengths, while removal rounds each text's tokens up.
"""

import shlex
from dataclasses import dataclass

BASE = "sentence-transformers/all-MiniLM-L6-v2"
DENSE = "dense"
SEEDS = (0, 1, 2)

# Texts are cut where ToP's padding ends, so that "padded to the maximum" counts as ToP does: 64, 128, 512.
COMMON = {
    "sst2": "--max-length 64 --bf16",
    "mrpc": "--max-length 128 --batch 32 --bf16",
    "20news": "--max-length 512 --bf16",
}
# A student of its own dense self hardly overfits: no dropout, most of the loss from the teacher.
_STUDENT = "--lr 6e-5 --freeze-embeddings --dropout 0 --distillation 0.9 --state-distillation 1 --layer-distillation 10"
# SST-2 trains on phrases of 13 tokens and is scored on sentences of 25: its longer phrases and joined ones are nearer to those.
_SENTENCES = f"--min-length 16 --joined 60000 {_STUDENT} --batch 48"
# Early layers that know which tokens matter are worth more than a third epoch.
_SST2 = f"--soft-epochs 0.28 --epochs 2 --importance-distillation 100 {_SENTENCES}"
# MRPC has 4,080 pairs: turned round, and put together anew, they are many times as many, and the more the better: after the same
# steps on 8,000 pairs and on 34,000 the pruned model's answers were 0.25 and 0.18 (KL) from the dense model's. Which tokens of a pair
# matter is said better by gradients than by attention: in the mean over the layers it ranks worse there than each layer's own.
# `top-2x` needed no more than a third of them, made when such pairs still lay word beside word.
_PAIRS = f"--epochs 2 --importance-distillation 100 --importance-from saliency {_STUDENT}"
_MRPC = f"--soft-epochs 0.11 --joined 90000 {_PAIRS}"
_MRPC_FEWER = f"--soft-epochs 0.3 --joined 30000 {_PAIRS}"
# Half the batch of the dense model's training: what is learned in 0.3 epochs wants steps more than it wants smooth ones.
_20NEWS = f"--soft-epochs 0.3 --epochs 2.5 --batch 16 --importance-distillation 100 {_STUDENT}"
# Thresholds that meet the constraint in a line are held there: what a soft stage of some hundred steps makes of them is flatter, which
# is worse once the weights have adapted. The root of the length spares long texts, and survivors learn to read those that leave.
_LTP = (
    "--multiplier-lr 0.05 --multiplier-start 25 --start-power 1 --threshold-lr 0.0003 --temperature 0.1 0.05"
    " --score-denominator sqrt_kept --token-distillation 10"
)
# Four times as many texts in as many steps, of which a GPU makes ten a second, three trainings side by side; on two CPU cores it would be an hour.
_MANY = f"--soft-epochs 0.1 --epochs 2.4 --importance-distillation 100 --min-length 16 --joined 250000 {_STUDENT} --lr 1.2e-4 --batch 192"
# Fewer steps than on the others, or longer texts, want faster gates and multipliers.
_TOP = "--gate-lr 0.03 --multiplier-lr 0.05 --position after_attention --count-first"
_FIXED, _TOPK = "--line-start 1", "--final-keep 0.1 --whole-layers 1 --position before_layer"
# The baselines learn no soft stage: their one stage gets the steps of both. Their thresholds save about half of the dense
# model's FLOPs; SpAtten's schedule cannot save that much in 6 layers, even where all but the first prune.
TRAININGS = {
    "sst2": {
        DENSE: "dense --epochs 2 --batch 128 --lr 1.2e-4 --freeze-embeddings --dropout 0",
        "ltp-2.1x": f"ltp --speedup 2.09 {_LTP} {_MANY}",
        "ltp-3x": f"ltp --speedup 3 {_LTP} {_MANY}",
        "top-2.1x": f"top --speedup 2.12 {_TOP} {_SST2}",
        "top-3x": f"top --speedup 3.1 {_TOP} {_SST2}",
        "fixed": f"fixed --final-threshold 0.052 {_FIXED} --epochs 1.2 {_SENTENCES}",
        "topk": f"topk {_TOPK} --epochs 1.2 {_SENTENCES}",
    },
    "mrpc": {
        DENSE: "dense --epochs 5 --lr 8e-5 --freeze-embeddings",
        "ltp-2x": f"ltp --speedup 2.2 {_LTP} {_MRPC_FEWER}",
        "top-2x": f"top --speedup 2.2 {_TOP} {_MRPC_FEWER}",
        "top-3x": f"top --speedup 3.05 {_TOP} {_MRPC}",
        "fixed": f"fixed --final-threshold 0.03 {_FIXED} --epochs 8 {_STUDENT}",
        "topk": f"topk {_TOPK} --epochs 8 {_STUDENT}",
    },
    "20news": {
        DENSE: "dense --epochs 1.5 --batch 32 --lr 1e-4 --freeze-embeddings --dropout 0",
        "ltp-4x": f"ltp --speedup 4.15 {_LTP} {_20NEWS}",
        "top-4x": f"top --speedup 4.1 {_TOP} {_20NEWS}",
        "topk": f"topk {_TOPK} --epochs 1.4 --batch 32 {_STUDENT}",
    },
}


# At which a finished training is also scored, its pruning made milder or harsher (`train_all.py --points`).
SPEEDUPS = {"sst2": (1.4, 1.7, 2.0, 2.4, 3.0), "mrpc": (1.5, 2.0, 2.5, 3.0, 4.0), "20news": (2.0, 3.0, 4.0, 5.0)}


@dataclass(frozen=True)
class Recipe:
    """One training but for its seed.   arguments: of `tokprune train`, the method first."""

    data: str
    name: str
    arguments: tuple[str, ...]

    @property
    def method(self) -> str:
        return self.arguments[0]


def recipe(data: str, name: str) -> Recipe:
    """Raises KeyError where there is none."""
    return Recipe(data, name, (*shlex.split(TRAININGS[data][name]), *shlex.split(COMMON[data])))


def recipes(data_sets: list[str] | None = None, names: list[str] | None = None) -> list[Recipe]:
    """Those of the data sets and of the names given (None: all), dense ones first.

    Raises ValueError for a data set or a name that there is none of.
    """
    known = {name: None for trainings in TRAININGS.values() for name in trainings}
    for what, given, there in (("data set", data_sets, TRAININGS), ("training", names, known)):
        if unknown := [name for name in given or () if name not in there]:
            raise ValueError(f"no {what} {', '.join(map(repr, unknown))} in recipes.py; there are {', '.join(there)}")
    chosen = [recipe(data, name) for data in data_sets or TRAININGS for name in TRAININGS[data] if names is None or name in names]
    return sorted(chosen, key=lambda one: one.method != DENSE)
