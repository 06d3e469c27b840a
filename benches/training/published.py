"""What the papers report, to stand beside our numbers."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """A score with its factor of FLOPs against texts padded to the task's maximum.

    padding: what leaving out that padding alone saves, dense, counted by `tokprune_kernels.flops` at the model's shape over
    benches/lengths; factor / padding is what is left for pruning.
    """

    model: str
    score: float
    factor: float
    maximum: int
    padding: float


# ToP's repository (Li et al., KDD 2023), table of results; BERT-base-uncased. The scores are of GLUE's validation rows.
TOP = {
    "sst2": Published("BERT-base", 93.4, 4.66, 64, 2.56),
    "mrpc": Published("BERT-base", 89.1, 7.71, 128, 2.45),
}
# The abstract of LTP (Kim et al., KDD 2022).
LTP = "LTP reports up to 2.1x fewer FLOPs than unpadded dense at less than 1% lost accuracy, with RoBERTa-base on GLUE and SQuAD."
