"""Run the activations of `linear_rows` (in float32 and float16: the interpreter multiplies no bfloat16) in triton's interpreter on numbers near and far, and print what is wrong, as JSON.

A process of its own, see interpret.py. Rows: [dtype, activation, the largest error on [-12, 12], wrong tails, NaNs lost].
"""

import json
import os

os.environ["TRITON_INTERPRET"] = "1"

import torch  # noqa: E402

from tokprune_kernels.gpu.linear import linear_into  # noqa: E402
from tokprune_kernels.reference.linear import ACTIVATIONS, FUNCTIONS  # noqa: E402


def activated(x, code):
    out, one, nothing = torch.empty_like(x)[:, None], torch.ones(1, 1, dtype=x.dtype), torch.zeros(1, dtype=x.dtype)
    linear_into(out, x[:, None].contiguous(), one, nothing, code)
    return out[:, 0].double()


if __name__ == "__main__":
    torch.set_num_threads(1)
    for dtype in (torch.float32, torch.float16):
        near = torch.linspace(-12, 12, 2401).to(dtype)
        far = torch.logspace(1.1, 38 if dtype != torch.float16 else 4.8, 300).to(dtype)
        for name, code in ACTIVATIONS.items():
            error = (activated(near, code) - FUNCTIONS[code](near.double())).abs().max()
            below = 0.0 if name != "none" else -far.double()
            wrong = int((activated(far, code) != far.double()).sum() + (activated(-far, code) != below).sum())
            lost = int((~activated(torch.full((3,), float("nan"), dtype=dtype), code).isnan()).sum())
            print(json.dumps([str(dtype).removeprefix("torch."), name, float(error), wrong, lost]))
