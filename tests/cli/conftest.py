"""A tiny random BERT on disk with a tokenizer of its own, and a way to run `tokprune` inside the test's process."""

import json

import pytest
import torch

LAYERS = 3
WORDS = "the cat sat on a mat and then it slept while rain fell ##s ##ing . ,".split()
TEXTS = [
    "the cat sat .",
    "rain fell and then the cats sat on a mat , sleeping .",
    "it slept while the rain fell .",
    "a",
]


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory):
    """Folder of a 3-layer BERT with random weights and a WordPiece vocabulary of a few words."""
    return _save_tiny(tmp_path_factory.mktemp("tiny_bert"), "BertModel")


@pytest.fixture(scope="session")
def tiny_classifier(tmp_path_factory):
    """Folder of the same with a sequence classification head."""
    return _save_tiny(tmp_path_factory.mktemp("tiny_classifier"), "BertForSequenceClassification")


def _save_tiny(folder, kind):
    transformers = pytest.importorskip("transformers", reason="needs transformers")
    tokenizers = pytest.importorskip("tokenizers", reason="needs tokenizers")
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = {word: number for number, word in enumerate(special + WORDS)}
    plain = tokenizers.BertWordPieceTokenizer(vocab=vocabulary)
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=plain._tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=64,
    ).save_pretrained(folder)
    config = transformers.BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    torch.manual_seed(0)
    getattr(transformers, kind)(config).save_pretrained(folder)
    return folder


@pytest.fixture
def text_file(tmp_path):
    """A file with a few texts, one a line, and an empty line."""
    path = tmp_path / "texts.txt"
    path.write_text("\n".join([*TEXTS[:2], "", *TEXTS[2:]]) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def tokprune(capsys, monkeypatch):
    """Run `tokprune` with arguments; returns (exit code, stdout, stderr)."""
    from tokprune_kernels.cli.main import main

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    threads = torch.get_num_threads()

    def run(*arguments):
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    yield run
    torch.set_num_threads(threads)


@pytest.fixture
def json_of(tokprune, tmp_path):
    """Run `tokprune` with --json; returns what the file holds. The command must succeed."""

    def run(*arguments):
        path = tmp_path / "result.json"
        code, _, errors = tokprune(*arguments, "--json", path)
        assert code == 0, errors
        return json.loads(path.read_text(encoding="utf-8"))

    return run
