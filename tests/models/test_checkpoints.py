"""A pruned checkpoint is loaded pruned, or the loader is told what is missing; whatever type, head and route it came by."""

import json
import os
import subprocess
import sys

import pytest
import tokprune_kernels as tk
import torch
import transformers

from tokprune_kernels import _auto
from tokprune_kernels.models.adapters import KINDS

from .helpers import random_batch, random_bert, random_model, run

TYPES = {
    "bert": "Bert", "roberta": "Roberta", "xlm-roberta": "XLMRoberta", "camembert": "Camembert", "data2vec-text": "Data2VecText",
    "electra": "Electra", "ernie": "Ernie", "distilbert": "DistilBert",
}  # fmt: skip
HEADS = {
    "Model": transformers.AutoModel,
    "ForSequenceClassification": transformers.AutoModelForSequenceClassification,
    "ForTokenClassification": transformers.AutoModelForTokenClassification,
    "ForQuestionAnswering": transformers.AutoModelForQuestionAnswering,
    "ForMaskedLM": transformers.AutoModelForMaskedLM,
    "ForMultipleChoice": transformers.AutoModelForMultipleChoice,
}
PRUNING = tk.PruningConfig.top([1.0, 0.5], position="before_layer")
IDS, MASK = random_batch((16, 4, 7))
IDS = IDS.clamp(min=5)  # no padding token of any type


def test_the_auto_classes_are_told_of_every_type():
    """DPR has a BERT inside."""
    assert set(KINDS) == set(TYPES) and set(_auto.TYPES) == {*KINDS, "dpr"}


def of_type(kind, head="Model"):
    cls = getattr(transformers, TYPES[kind] + head)
    sizes = {"num_hidden_layers": 2, "mask_token_id": 3}
    if kind == "distilbert":
        config = transformers.DistilBertConfig(vocab_size=97, max_position_embeddings=64, dim=64, n_heads=2, hidden_dim=128, n_layers=2)
        config.mask_token_id = 3
        return cls(config).eval()
    return random_model(cls, cls.config_class, **sizes)


def outputs(model, **options):
    ids, mask = (IDS, MASK) if "MultipleChoice" not in type(model).__name__ else (IDS[None], MASK[None])
    with torch.no_grad():
        return model(ids, attention_mask=mask, **options)


def assert_same(one, two):
    for ours, theirs in zip(outputs(one).to_tuple(), outputs(two).to_tuple(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("kind", TYPES)
def test_every_type_and_head_comes_back_pruned(kind, head, tmp_path):
    model = tk.prune_model(of_type(kind, head), PRUNING)
    model.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["model_type"] == f"tokprune_kernels_{kind}" and saved["architectures"] == [f"Pruned{TYPES[kind]}{head}"]
    for load in (HEADS[head].from_pretrained, tk.from_pretrained):
        back = load(tmp_path)
        assert type(back).__name__ == f"Pruned{TYPES[kind]}{head}" and isinstance(back, type(model))
        assert back.config.model_type == kind, "other tools find their way by it"
        assert_same(back, model)
        pruning = outputs(back, output_pruning=True).pruning
        assert (pruning.kept_lengths[-1] < MASK.sum(1)).all()
        back.save_pretrained(tmp_path / "again")
        assert json.loads((tmp_path / "again" / "config.json").read_text())["architectures"] == saved["architectures"]


def in_a_new_process(code, *arguments):
    """(exit status, what was printed and warned) of Python code that was given arguments."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    ran = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, env=environment)
    return ran.returncode, ran.stdout + ran.stderr


@pytest.fixture(scope="module")
def pruned_folder(tmp_path_factory, tokenizer):
    folder = tmp_path_factory.mktemp("pruned")
    model = random_bert(transformers.BertForSequenceClassification, num_hidden_layers=2, pad_token_id=0)
    model.resize_token_embeddings(len(tokenizer))
    tk.prune_model(model, PRUNING).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


# Each as code that makes `m` of the folder sys.argv[1].
ROUTES = {
    "AutoModel": "from transformers import AutoModel as M; m = M.from_pretrained(sys.argv[1])",
    "classifier": "from transformers import AutoModelForSequenceClassification as M; m = M.from_pretrained(sys.argv[1])",
    "AutoConfig": "from transformers import AutoConfig, AutoModel; m = AutoModel.from_config(AutoConfig.from_pretrained(sys.argv[1]))",
    "pipeline": "from transformers import pipeline; m = pipeline('text-classification', model=sys.argv[1]).model",
    "SentenceTransformer": "from sentence_transformers import SentenceTransformer as M; m = M(sys.argv[1], device='cpu')[0].auto_model",
    "CrossEncoder": "from sentence_transformers import CrossEncoder as M; m = M(sys.argv[1], device='cpu').model",
}


def in_turn(routes, imports=""):
    """Code that tries the routes one after the other and prints a line for each."""
    lines = [f"import sys, {imports or 'os'}"]
    for name, code in routes.items():
        lines += ["try:", f"    {code}", f"    print({name!r}, 'gave', type(m).__name__, getattr(m.config, 'pruning', None))"]
        lines += ["except Exception as error:", f"    print({name!r}, 'raised', str(error).splitlines()[0])"]
    return "\n".join(lines)


def test_without_the_package_its_name_is_said(pruned_folder):
    pytest.importorskip("sentence_transformers")
    by_name = {"BertModel": "from transformers import BertModel as M; m = M.from_pretrained(sys.argv[1])"}
    status, said = in_a_new_process(in_turn({**ROUTES, **by_name}), pruned_folder)
    assert status == 0
    for route in ROUTES:
        line = next(line for line in said.splitlines() if line.startswith(route))
        assert line.startswith(f"{route} raised") and "`tokprune_kernels_bert`" in line, line
    assert "BertModel gave BertModel" in said, "a class that was asked for by name loads, with transformers' own warning"
    assert "You are using a model of type `tokprune_kernels_bert` to instantiate a model of type `bert`" in said


@pytest.mark.parametrize("imports", ["tokprune_kernels", "transformers.models.auto, tokprune_kernels"], ids=["first", "second"])
def test_with_the_package_imported_it_is_pruned(imports, pruned_folder):
    """Whichever of the two packages comes first."""
    pytest.importorskip("sentence_transformers")
    status, said = in_a_new_process(in_turn(ROUTES, imports), pruned_folder)
    assert status == 0
    for route in ROUTES:
        line = next(line for line in said.splitlines() if line.startswith(route))
        assert line.startswith(f"{route} gave PrunedBert") and "[1.0, 0.5]" in line, line


def test_import_does_not_import_transformers():
    status, said = in_a_new_process("import sys, tokprune_kernels; print('transformers' in sys.modules)")
    assert status == 0 and "False" in said, said


def test_dense_is_an_ordinary_checkpoint(tmp_path):
    """Its answers are the ordinary ones."""
    model = tk.prune_model(of_type("roberta", "ForTokenClassification"), tk.PruningConfig.dense())
    model.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["model_type"] == "roberta" and saved["architectures"] == ["RobertaForTokenClassification"]
    assert type(transformers.AutoModelForTokenClassification.from_pretrained(tmp_path)) is transformers.RobertaForTokenClassification
    assert type(tk.from_pretrained(tmp_path)).__name__ == "PrunedRobertaForTokenClassification"


@pytest.mark.parametrize("former", ["pruned_bert", "bert"])
def test_folders_of_former_versions(former, tmp_path):
    model = tk.prune_model(of_type("bert", "ForSequenceClassification"), PRUNING)
    model.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    fields = json.loads(path.read_text())
    names = {"pruned_bert": "PrunedBertForSequenceClassification", "bert": "BertForSequenceClassification"}
    path.write_text(json.dumps({**fields, "model_type": former, "architectures": [names[former]]}))
    assert_same(tk.from_pretrained(tmp_path), model)
    assert_same(tk.PrunedBertForSequenceClassification.from_pretrained(tmp_path), model)
    if former == "pruned_bert":
        assert_same(transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path), model)
    else:
        plain = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path)
        assert_same(tk.prune_model(plain), model)


def test_prune_model_without_a_configuration_takes_the_checkpoints_own(tmp_path, transformers_log):
    model = tk.prune_model(of_type("bert"), PRUNING)
    model.save_pretrained(tmp_path)
    plain = transformers.BertModel.from_pretrained(tmp_path)
    assert "tokprune_kernels_bert" in transformers_log.text, "transformers says what it was asked to load"
    assert_same(tk.prune_model(plain), model)
    with pytest.raises(ValueError, match="says nothing of pruning.*PruningConfig.dense"):
        tk.prune_model(of_type("bert"))


def test_another_configuration_in_place_of_the_saved_one(tmp_path):
    tk.prune_model(of_type("electra"), PRUNING).save_pretrained(tmp_path)
    other = tk.PruningConfig.ltp([0.0, 0.05])
    for back in (tk.from_pretrained(tmp_path, pruning=other), transformers.AutoModel.from_pretrained(tmp_path, pruning=other)):
        assert back.config.pruning == other.to_dict()
    dense = tk.from_pretrained(tmp_path, pruning=None)
    assert (run(dense, IDS, MASK).pruning.kept_lengths[-1] == MASK.sum(1)).all()


@pytest.mark.parametrize("cls", [tk.PrunedBertModel, tk.PrunedBertForSequenceClassification])
def test_a_class_of_another_type_is_refused(cls, tmp_path):
    of_type("roberta").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="holds a model of type 'roberta'.*'bert'.*tokprune_kernels.from_pretrained"):
        cls.from_pretrained(tmp_path)


def test_a_folder_of_no_supported_type(tmp_path):
    transformers.GPT2Model(transformers.GPT2Config(n_layer=1, n_embd=32, n_head=2, vocab_size=50)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="GPT2Model.*'gpt2'.*cannot be pruned.*roberta"):
        tk.from_pretrained(tmp_path)


def test_register_for_auto_class_is_refused():
    with pytest.raises(ValueError, match="Auto classes of whoever has imported tokprune_kernels"):
        tk.PrunedBertModel.register_for_auto_class("AutoModel")


def test_a_model_type_with_a_bert_inside(tmp_path):
    """DPR: support goes by the class inside."""
    sizes = {"hidden_size": 64, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 128, "vocab_size": 97}
    plain = transformers.DPRQuestionEncoder(transformers.DPRConfig(**sizes)).eval()
    with torch.no_grad():
        expected = plain(IDS, attention_mask=MASK).pooler_output
    assert torch.allclose(outputs(tk.prune_model(plain, None)).pooler_output, expected, atol=1e-5)
    plain.set_pruning(PRUNING)
    pruned = outputs(plain).pooler_output
    assert not torch.allclose(pruned, expected, atol=1e-3)
    plain.save_pretrained(tmp_path)
    back = transformers.AutoModel.from_pretrained(tmp_path)
    assert type(back).__name__ == "PrunedDPRQuestionEncoder"
    assert torch.equal(outputs(back).pooler_output, pruned)
    assert torch.equal(outputs(tk.from_pretrained(tmp_path)).pooler_output, pruned)


def test_training_with_the_trainer_keeps_the_pruning(tmp_path):
    """Its reload of the best checkpoint, too."""
    model = tk.prune_model(of_type("bert", "ForSequenceClassification"), PRUNING)
    rows = [{"input_ids": IDS[i % 3], "attention_mask": MASK[i % 3], "labels": i % 2} for i in range(8)]
    arguments = transformers.TrainingArguments(
        tmp_path, max_steps=2, eval_strategy="steps", eval_steps=1, save_steps=1, load_best_model_at_end=True, report_to=[],
        use_cpu=True, per_device_train_batch_size=4,
    )  # fmt: skip
    with pytest.warns(UserWarning, match="attention dropout"):
        trainer = transformers.Trainer(model, arguments, train_dataset=rows, eval_dataset=rows)
        trainer.train()
    assert (outputs(model.eval(), output_pruning=True).pruning.kept_lengths[-1] < MASK.sum(1)).all()
    best = trainer.state.best_model_checkpoint
    assert_same(transformers.AutoModelForSequenceClassification.from_pretrained(best), model)
