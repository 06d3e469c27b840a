"""RoBERTa, whose positions count from its padding's, on texts in which that token stands."""

import pytest
import tokenizers
import transformers

from .conftest import WORDS


@pytest.fixture(scope="module")
def tiny_roberta(tmp_path_factory):
    """Folder of a RoBERTa with random weights, and a tokenizer that takes "<pad>" in a text for the padding's token."""
    folder = tmp_path_factory.mktemp("tiny_roberta")
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    vocabulary = {word: number for number, word in enumerate(special + WORDS)}
    plain = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocabulary, unk_token="<unk>"))
    plain.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    plain.post_processor = tokenizers.processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    names = dict(zip(("bos_token", "pad_token", "eos_token", "unk_token", "mask_token"), special, strict=True))
    transformers.PreTrainedTokenizerFast(tokenizer_object=plain, cls_token="<s>", sep_token="</s>", model_max_length=60, **names).save_pretrained(folder)
    sizes = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 64, "max_position_embeddings": 64}
    transformers.set_seed(0)
    transformers.RobertaModel(transformers.RobertaConfig(vocab_size=len(vocabulary), pad_token_id=1, **sizes)).save_pretrained(folder)
    return folder


def test_a_padding_token_in_a_text(json_of, tiny_roberta, tmp_path):
    (tmp_path / "texts.txt").write_text("the cat <pad> sat on a mat\nrain fell and then the cat sat while it slept\n")
    result = json_of("bench", tiny_roberta, "--text", tmp_path / "texts.txt", "--repeats", 1)
    assert all(check["passed"] for check in result["checks"]) and result["input"]["shortest"] == 9
    shown = json_of("show", tiny_roberta, "the cat <pad> sat")["texts"][0]
    assert shown["tokens"] == ["<s>", "the", "cat", "<pad>", "sat", "</s>"] and sum(shown["alive"][0]) == 6
