"""Every engine of the model benchmark that is installed computes what Hugging Face does."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers", reason="the engines run transformers' BertModel")

import engines  # noqa: E402
from engines.engine import OURS, Engine  # noqa: E402
from engines.onnx_export import cached  # noqa: E402
from engines.ours_top_8x import REDUCTION, kept_lengths, ratios_for, reduction, stronger  # noqa: E402
from engines.pruned import KEEP_RATIOS, PrunedRun, keep_ratios  # noqa: E402
from engines.twins import twin  # noqa: E402
from model_checks import check  # noqa: E402
from transformers import BertConfig, BertModel  # noqa: E402
from workloads import TASK_MAXIMA, Workload, all_workloads, batch_of  # noqa: E402


def tiny(layers=2):
    torch.manual_seed(0)
    shape = {"hidden_size": 128, "num_attention_heads": 2, "intermediate_size": 256, "num_hidden_layers": layers}
    return BertModel(BertConfig(**shape, attn_implementation="sdpa")).eval()


def ragged(padded_to=None):
    generator = torch.Generator().manual_seed(0)
    shapes = ([9, 17, 30], [21], [5, 33])
    return Workload("ragged", [batch_of(lengths, generator, padded_to) for lengths in shapes], padded_to)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("peers")


@pytest.fixture(autouse=True)
def _no_traces_of_compilation(cache, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(cache / "inductor"))
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("dtype", ("fp32", "bf16"))
@pytest.mark.parametrize("engine", engines.all_engines(), ids=lambda engine: engine.name)
def test_an_engine_equals_hugging_face(engine, dtype, cache):
    if dtype not in engine.dtypes:
        pytest.skip(f"{engine.name} has no {dtype}")
    if (engine.name, dtype) == ("torch_compile", "bf16"):
        pytest.skip("20 s more of compilation, for the path of fp32; the benchmark checks it before timing")
    if reason := engine.missing():
        pytest.skip(f"{engine.name} {reason}")
    model = tiny(12 if engine.at_padded_task else 2)  # two layers cannot save 8.1x
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    workload = ragged(64 if engine.at_padded_task else None)
    with torch.inference_mode():
        exact_run = engines.find("hf_sdpa").load(model, dtype, 2, cache)
        exact = [exact_run(batch) for batch in workload.batches]
        run = engine.load(model, dtype, 2, cache)
        if isinstance(run, PrunedRun):
            run.tune(workload)
        check(engine, run, workload, dtype, exact, model)
        hidden = run(workload.batches[0])
    shape = exact[0][:, 0].shape if engine.pooled_only else exact[0].shape
    assert isinstance(hidden, torch.Tensor) and hidden.shape == shape
    after = model.state_dict()
    assert all(torch.equal(weight, after[name]) for name, weight in before.items()), "an engine changed the model"


def test_a_wrong_result_is_refused():
    model, workload = tiny(), ragged()
    with torch.inference_mode():
        run = engines.find("hf_sdpa").load(model, "fp32", 2, None)
        exact = [run(batch) for batch in workload.batches]
        engine = engines.find("hf_eager")
        with pytest.raises(SystemExit, match="hf_eager on ragged in fp32: wrong result"):
            check(engine, lambda batch: run(batch) + 1e-2, workload, "fp32", exact, model)


def test_a_pruned_engine_is_checked_with_its_tokens_dropped():
    model, workload = tiny(), ragged()
    engine = engines.find("ours_top")
    with torch.inference_mode():
        run = engine.load(model, "fp32", 2, None)
        run.tune(workload)
        run.model.set_pruning(None)  # the dense result, under the name of the pruned one
        run.kept_mask = lambda batch: _without_last_tokens(batch, layers=2)
        with pytest.raises(SystemExit, match="ours_top on ragged"):
            check(engine, run, workload, "fp32", [None] * 3, model)


def _without_last_tokens(batch, layers):
    live = batch["attention_mask"].bool()
    kept = live.clone()
    kept[:, 5:] = False
    return torch.stack([live] + [kept] * layers)


def test_a_twin_can_be_changed():
    model = tiny()
    same, half = twin(model, "fp32"), twin(model, "bf16")
    assert next(same.parameters()) is next(model.parameters()), "ten engines share one model's weights"
    same.set_attn_implementation("eager")
    same.encoder.layer = same.encoder.layer[:1]
    assert model.config._attn_implementation == "sdpa" and len(model.encoder.layer) == 2
    assert half.dtype == torch.bfloat16 and model.dtype == torch.float32


def test_a_missing_package_is_named():
    engine = Engine("x", OURS, ("fp32",), None, ("torch", "no_such_package"))
    assert engine.missing() == "needs no_such_package (pip install no_such_package)"
    assert Engine("x", OURS, ("fp32",), None, absent=lambda: "needs a compiler").missing() == "needs a compiler"
    assert Engine("x", OURS, ("fp32",), None, ("torch",)).missing() is None


def test_names_are_those_of_the_modules():
    assert [engine.name for engine in engines.all_engines()] == list(engines.NAMES)
    with pytest.raises(ValueError, match="unknown engine 'fast'; known: hf_eager"):
        engines.find("fast")


def test_who_runs_where():
    padded = {engine.name for engine in engines.all_engines() if engine.runs(64)}
    others = {engine.name for engine in engines.all_engines() if engine.runs(None)}
    assert padded - others == {"ours_top_8x"} and others - padded == {"ours_top", "ours_ltp"}


def test_exported_files_are_made_again_when_the_model_changes(tmp_path, monkeypatch):
    monkeypatch.setattr("engines.onnx_export.PACKAGES", ("torch",))
    made = []

    def write(path):
        made.append(path)
        path.write_text("model")

    first = cached(tiny(), tmp_path, "plain", write)
    assert cached(tiny(), tmp_path, "plain", write) == first and len(made) == 1
    other = tiny()
    other.pooler.dense.bias.data += 1
    assert cached(other, tmp_path, "plain", write) != first and len(made) == 2
    monkeypatch.setattr("importlib.metadata.version", lambda name: "99")
    assert cached(tiny(), tmp_path, "plain", write) != first and len(made) == 3
    with pytest.raises(ZeroDivisionError):
        cached(tiny(), tmp_path, "fused", lambda path: path.write_text("half") / 0)
    assert len(made) == 3 and not list(tmp_path.glob("bert*fused*")), "a half-written file is never found"


@pytest.mark.parametrize("task", TASK_MAXIMA)
def test_the_operating_point_is_reached_and_not_passed(task):
    workload = next(one for one in all_workloads() if one.name == f"{task} padded to {TASK_MAXIMA[task]}")
    config, length = BertConfig(), TASK_MAXIMA[task]
    ratios = ratios_for(REDUCTION, list(KEEP_RATIOS), workload.lengths, config, length)
    assert REDUCTION <= reduction(ratios, workload.lengths, config, length) < 1.01 * REDUCTION
    assert ratios[0] == 1.0 and all(0 < ratio <= 1 for ratio in ratios)


def test_an_operating_point_out_of_reach():
    with pytest.raises(ValueError, match="no strength of the keep ratios reaches a reduction of 50x"):
        ratios_for(50, list(KEEP_RATIOS), torch.tensor([64, 64]), BertConfig(), 64)


def test_predicted_lengths_are_those_of_a_run():
    model, workload = tiny(12), ragged()
    run = engines.find("ours_top").load(model, "fp32", 2, None)
    for strength in (0.0, 1.0, 2.5):
        ratios = stronger(keep_ratios(12), strength)
        run.model.set_pruning(run.pruning.top(ratios))
        for batch in workload.batches:
            predicted = kept_lengths(ratios, batch["attention_mask"].sum(1))
            with torch.inference_mode():
                assert torch.equal(run.kept_lengths(batch).long(), predicted)


def test_keep_ratios_are_given_for_twelve_layers():
    with pytest.raises(ValueError, match="up to 12 layers, the model has 13"):
        keep_ratios(13)
