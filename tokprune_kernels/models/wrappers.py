"""What holds transformers models: sentence-transformers' models, PEFT's, or a module of the user's own.

None of those libraries is imported: what they are made of is told by its class.
"""

from __future__ import annotations

import warnings

from torch import nn
from transformers import PreTrainedModel

def models_inside(model: nn.Module) -> list[PreTrainedModel]:
    """The outermost transformers models of a module, without repetition; TypeError if there is none."""
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"model must be a transformers model or something that holds one, such as a SentenceTransformer, got {type(model).__name__}"
        )
    found: list[PreTrainedModel] = []
    places = [model]
    while places:
        place = places.pop(0)
        if isinstance(place, PreTrainedModel):
            found += [place] if not any(place is one for one in found) else []
        else:
            places = [*place.children(), *places]
    if not found:
        holds = ", ".join(dict.fromkeys(type(child).__name__ for child in model.children())) or "nothing"
        raise TypeError(f"{type(model).__name__} holds no transformers model that could be pruned, but {holds}")
    return found


def pooled_readout(model: nn.Module) -> str | None:
    """What PruningConfig.readout has to be for the poolings inside a SentenceTransformer; None where there is none.

    ValueError for the pooling that reads the last token, and for several that need different ones.
    """
    poolings = [module for module in model.modules() if _is_pooling(module)]
    readouts = list(dict.fromkeys(map(_readout_of, poolings)))
    if len(readouts) > 1:
        raise ValueError(
            f"the model pools in ways that need different readouts ({', '.join(readouts)}): prune the transformers models inside it one "
            "by one, each with the readout of its own pooling in the PruningConfig"
        )
    if any(not getattr(pooling, "include_prompt", True) for pooling in poolings):
        warnings.warn(
            "tokprune_kernels: the model's pooling leaves the prompt out (include_prompt=False). Where tokens are pruned, their places "
            "hold the mean of all survivors, those of the prompt among them",
            UserWarning,
            stacklevel=3,
        )
    return readouts[0] if readouts else None


def _is_pooling(module: nn.Module) -> bool:
    return any(cls.__name__ == "Pooling" and cls.__module__.startswith("sentence_transformers.") for cls in type(module).__mro__)


def _readout_of(pooling: nn.Module) -> str:
    modes = getattr(pooling, "pooling_mode", None) or pooling.get_pooling_mode_str().split("+")
    modes = {modes} if isinstance(modes, str) else set(modes)
    if "lasttoken" in modes:
        raise ValueError(
            "the model pools the last token of a text, which pruning may remove: say in the PruningConfig what is to be read "
            "(readout='tokens') and protect that token (protected_token_ids=[its id]), and prune the transformers model inside"
        )
    # The mean of the survivors in the places of the pruned is right for every kind of mean, and cannot be a maximum.
    return "first" if modes == {"cls"} else "survivor_mean"
