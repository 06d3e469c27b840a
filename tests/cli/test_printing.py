"""What is printed of texts, labels and paths that others wrote: every character once, none of them a command to the terminal."""

import io
import subprocess
import sys
from pathlib import Path

import pytest
import tokenizers
import transformers
from tokprune_kernels.cli.survivors import draw_survivors
from tokprune_kernels.cli.table import format_pairs, format_table
from tokprune_kernels.cli.terminal import Terminal, plain
from tokprune_kernels.cli.texts import read_texts

RATIOS = ("--keep-ratios", "1.0,0.6,0.4")


@pytest.mark.parametrize(
    "alive, drawn",
    [("xxxxxxx", "日本 a"), ("x......", "日· ·"), ("..x..x.", "日本 ·"), ("......x", "· a"), ("...x...", "·本 ·")],
)
def test_tokens_that_share_characters(alive, drawn):
    """Three bytes a character, and a space before the word that counts to its token."""
    text, offsets = "日本 a", [(0, 1)] * 3 + [(1, 2)] * 3 + [(2, 4)]
    assert draw_survivors(text, offsets, [letter == "x" for letter in alive], Terminal(io.StringIO())).replace(".", "·") == drawn


def test_bytes_are_drawn_once(tokprune, tiny_bert, tmp_path):
    """By a tokenizer of bytes, as RoBERTa's."""
    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    plain_tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE({letter: number for number, letter in enumerate([*letters, "[PAD]"])}, []))
    plain_tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    transformers.PreTrainedTokenizerFast(tokenizer_object=plain_tokenizer, pad_token="[PAD]").save_pretrained(tmp_path)
    config = transformers.AutoConfig.from_pretrained(tiny_bert, vocab_size=257)
    transformers.BertModel(config).save_pretrained(tmp_path)
    code, out, errors = tokprune("show", tmp_path, "日本語 é", *RATIOS)
    assert code == 0, errors
    assert "in layer 1  日本語 é\n" in out and "12 tokens" in out


HOSTILE = "cat \x1b[2J\x9b1m\u202ehidden\u2028 \x07\x00"


def test_no_commands():
    assert plain("naïve 日本 👩‍👩‍👧 a") == "naïve 日本 👩‍👩‍👧 a"
    spelled = r"cat \x1b[2J\x9b1m\u202ehidden\u2028 \x07\x00"
    assert plain(HOSTILE) == spelled and plain("\udcff\n") == r"\udcff\n"
    assert draw_survivors(HOSTILE, [(0, len(HOSTILE))], [True], Terminal(io.StringIO())) == spelled
    assert spelled in format_pairs([("name", f"a\n{HOSTILE}")]) and spelled in format_table(["", ""], [[HOSTILE, 1]])


def harmless(*printed):
    return not any(letter in text for text in printed for letter in "\x1b\x9b\u202e\u2028\x07\x00")


def test_commands_in_texts_labels_and_errors(tokprune, tiny_classifier, tmp_path):
    model = transformers.BertForSequenceClassification.from_pretrained(tiny_classifier)
    model.config.id2label = {0: HOSTILE, 1: HOSTILE + "b"}
    model.save_pretrained(tmp_path / "model")
    transformers.AutoTokenizer.from_pretrained(tiny_classifier).save_pretrained(tmp_path / "model")
    code, out, errors = tokprune("show", tmp_path / "model", "the cat\x1b[2J sat\x9b1m", "\u202ecat", *RATIOS)
    assert code == 0 and harmless(out, errors) and r"\x1b[2J" in out
    (tmp_path / "a.jsonl").write_text(f"{HOSTILE}\n")
    for given in (("show", HOSTILE.replace("\0", ""), "x"), ("show", "model", "--text", tmp_path / "a.jsonl"), ("nosuch\x1b",), ("env", "--x\x1b"), ("show", "m", "t", "--pruning", "\x1b")):
        code, out, errors = tokprune(*given)
        assert code in (1, 2) and harmless(out, errors) and errors.count("\n") == 1


def test_lines_end_at_newlines_only(tmp_path):
    path = tmp_path / "texts.txt"
    path.write_bytes("\ufeffa\u2028b\r\nc\x85d\x0ce\n\n\x1cf\x0bg\n".encode())
    assert read_texts(path).first == ["a\u2028b", "c\x85d\x0ce", "f\x0bg"]
    assert read_texts(path, 1).first == ["a\u2028b"]


def run(folder, *arguments, encoding="utf-8"):
    command = [sys.executable, "-m", "tokprune_kernels.cli.main", "show", str(folder), *arguments]
    environment = {"PYTHONIOENCODING": encoding, "PYTHONPATH": ":".join(sys.path), "HF_HUB_OFFLINE": "1", "PATH": ""}
    return subprocess.run(command, env=environment, cwd=Path(__file__).parents[2], capture_output=True, check=False)


def test_terminals_and_arguments_that_are_not_utf8(tiny_classifier):
    done = run(tiny_classifier, "the cat 日本", encoding="ascii")
    assert done.returncode == 0 and rb"in layer 1  the cat \u65e5\u672c" in done.stdout, done.stderr
    done = run(tiny_classifier, b"caf\xe9")
    assert done.returncode == 2 and done.stderr.count(b"\n") == 1 and b"give it in a file, with --text" in done.stderr
