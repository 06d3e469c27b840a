"""No engine is timed on a workload before its results there are right."""

import sys
from pathlib import Path

import torch
from engines.engine import LOW_PRECISION, Batch, Engine, Run
from engines.pruned import PrunedRun
from harness import relative_error, require_close
from transformers import BertModel
from workloads import Workload

# The masking oracle of the tests: written from the definitions, it shares no code with the package.
sys.path.append(str(Path(__file__).parents[1] / "tests"))
from oracle import Pruning, oracle_forward  # noqa: E402

TOLERANCE = {"fp32": 1e-4, "bf16": 5e-2}  # largest error relative to the largest value, live positions
QUANTISED = 0.25  # int8 is reported and not judged by the tolerances; more than this would be another model


def check(
    engine: Engine, run: Run, workload: Workload, dtype: str, exact: list[torch.Tensor], model: BertModel
) -> None:
    """Raise SystemExit if a result is wrong; afterwards every shape of the workload has been run once.

    exact: Hugging Face's last hidden states (B, L, H) of each batch in the same dtype. model: the fp32 model that all
    engines loaded; what pruning does is checked on the first batch, against the oracle with the same tokens kept.
    """
    name = f"{engine.name} on {workload.name} in {dtype}"
    results = [run(batch) for batch in workload.batches]
    pairs = list(zip(results, exact, strict=True))
    if isinstance(run, PrunedRun) and not run.pruning.is_dense:
        pairs = [(results[0], pruned_by_the_oracle(model, workload.batches[0], run))]
    if engine.pooled_only:
        pairs = [(pooled, model.pooler(hidden.to(model.dtype))) for pooled, hidden in pairs]
    else:
        live = [batch["attention_mask"].bool() for batch in workload.batches]
        pairs = [(hidden[mask], expected[mask]) for (hidden, expected), mask in zip(pairs, live, strict=False)]
    tolerance = TOLERANCE[dtype]
    if engine.kind == LOW_PRECISION:
        tolerance = QUANTISED
        print(f"  {name}: relative error {max(relative_error(*pair) for pair in pairs):.1e}")
    for hidden, expected in pairs:
        require_close(name, hidden, expected, tolerance)


def pruned_by_the_oracle(model: BertModel, batch: Batch, run: PrunedRun) -> torch.Tensor:
    """(B, L, H) of masked attention in the model's dtype, with the tokens that the run keeps."""
    rule = Pruning(run.pruning.criterion, run.pruning.values, run.pruning.position)
    return oracle_forward(model, **batch, pruning=rule, forced_kept_mask=run.kept_mask(batch)).last_hidden_state
