"""Hugging Face's BertModel as it is, with one of its attention implementations."""

from .engine import PEER, Engine
from .twins import twin


def huggingface(attention: str) -> Engine:
    """hf_eager or hf_sdpa: every linear layer is torch.nn.functional.linear (MKL in fp32, oneDNN in bf16)."""

    def load(model, dtype, threads, cache_folder):
        own = twin(model, dtype)
        own.set_attn_implementation(attention)
        return lambda batch: own(**batch).last_hidden_state

    return Engine(f"hf_{attention}", PEER, ("fp32", "bf16"), load)
