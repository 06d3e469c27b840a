"""Check, count and time a comparison, in that order."""

from dataclasses import dataclass

from .checks import Check
from .comparison import PACKED, PADDED, Comparison
from .errors import CliError
from .terminal import Progress
from .timing import Timing, interleave


@dataclass(frozen=True)
class Measurement:
    """What was found: the checks, all passed; FLOPs of all batches and timings, contender -> number."""

    checks: list[Check]
    flops: dict[str, float]
    timings: dict[str, Timing]

    @property
    def factors(self) -> dict[str, dict[str, float]]:
        """What each contender gains against both dense baselines, as medians' ratios; above 1 is better."""
        return {
            name: {f"time_vs_{base}": self.timings[base].median_s / timing.median_s for base in (PADDED, PACKED)}
            | {f"flops_vs_{base}": self.flops[base] / self.flops[name] for base in (PADDED, PACKED)}
            for name, timing in self.timings.items()
        }

    def to_dict(self) -> dict:
        """Return everything as JSON types."""
        return {
            "checks": [check.to_dict() for check in self.checks],
            "flops": self.flops,
            "timings": {name: timing.to_dict() for name, timing in self.timings.items()},
            "factors": self.factors,
        }


def measure(
    comparison: Comparison, batches: list[dict], padded_to: int, repeats: int, budget_s: float | None = None
) -> Measurement:
    """Check all batches, count their FLOPs, and time passes over all of them (`timing.interleave`).

    padded_to: the length of the FLOPs baseline "padded to a maximum".
    Raises CliError that names the checks that failed: nothing is timed on wrong results.
    """
    inspected = [comparison.inspect(batch, padded_to) for batch in batches]
    checks = [check for checks, _ in inspected for check in checks]
    failed = [f"{check.name} ({check.detail})" for check in checks if not check.passed]
    if failed:
        raise CliError(f"wrong results, so nothing was timed: {'; '.join(failed)}")
    flops = {name: sum(count[name] for _, count in inspected) for name in inspected[0][1]}
    contenders = {
        name: (lambda name=name: [comparison.run(name, batch) for batch in batches]) for name in comparison.models
    }
    with Progress("timing") as progress:  # no warm-up: every contender has just run every batch
        timings = interleave(contenders, repeats, warmup=0, budget_s=budget_s, progress=progress)
    return Measurement(checks, flops, timings)
