"""Trainings: what is run, what is kept of them, and what the README and the plots make of it."""

import json
import shutil
from pathlib import Path

import pytest

from tests.benches import trainings

train_all = pytest.importorskip("train_all", reason="needs the folder benches/")

from training import records, recipes, section  # noqa: E402
from training.published import TOP  # noqa: E402
from training.results import DATA_SETS, METHODS, TrainingResults  # noqa: E402


@pytest.fixture
def kept(tmp_path):
    """The made-up trainings, collected."""
    work = trainings.write_all(tmp_path / "work")
    assert train_all.main(["--collect", str(work), "--out", str(tmp_path / "kept")]) == 0
    return tmp_path / "kept"


class TestRecipes:
    def test_every_recipe_is_a_command_that_can_be_given(self):
        pytest.importorskip("datasets", reason="tokprune train needs it")
        for one in recipes.recipes():
            assert records._parsed(one.arguments)["method"] == one.method in METHODS

    def test_every_data_set_has_a_dense_model_and_a_title(self):
        for data, names in recipes.TRAININGS.items():
            assert recipes.DENSE in names and data in DATA_SETS and data in recipes.COMMON

    @pytest.mark.parametrize("given", [{"data_sets": ["imdb"]}, {"names": ["ltp-9x"]}])
    def test_unknown_names_are_refused_with_those_that_exist(self, given):
        with pytest.raises(ValueError, match=r"no .*'(imdb|ltp-9x)' in recipes.py; there are (sst2|dense)"):
            recipes.recipes(**given)


class TestKeeping:
    def test_small_files_without_weights_or_folder_names(self, kept):
        assert sorted(file.name for file in (kept / "sst2" / "ltp-2.1x-seed1").iterdir()) == ["hard.jsonl", "result.json", "soft.jsonl"]
        assert "somewhere" not in "".join(file.read_text() for file in kept.rglob("*.json*"))
        arguments = json.loads((kept / "sst2" / "ltp-2.1x-seed1" / "result.json").read_text())["arguments"]
        assert (arguments["model"], arguments["data"], arguments["output"]) == ("dense-seed1", "sst2", "ltp-2.1x-seed1")
        dense = json.loads((kept / "sst2" / "dense-seed0" / "result.json").read_text())
        assert dense["arguments"]["model"] == "all-MiniLM-L6-v2"

    def test_unfinished_ones_are_left_out(self, tmp_path):
        folder = trainings.write(tmp_path / "work", "sst2", "dense", 0, trainings.result("dense", 0, 0.9, 1.0))
        (folder / "result.json").unlink()
        assert list(records.places(tmp_path / "work")) == []

    def test_logs_are_thinned_and_rounded(self, tmp_path):
        trainings.write(tmp_path / "work", "sst2", "dense", 0, trainings.result("dense", 0, 0.9, 1.0), log_lines=1000)
        (place,) = records.places(tmp_path / "work")
        lines = [json.loads(line) for line in (records.keep(place, tmp_path) / "dense.jsonl").read_text().splitlines()]
        assert len(lines) == records.LOG_LINES and lines[0]["step"] == 50 and lines[-1]["step"] == 50_000
        assert len({line["step"] for line in lines}) == len(lines) and lines[0]["loss"] == 0.33333

    def test_an_earlier_copy_leaves_nothing_behind(self, kept, tmp_path):
        shutil.rmtree(tmp_path / "work" / "sst2" / "ltp-2.1x-seed0" / "soft")
        train_all.main(["--collect", str(tmp_path / "work"), "--only", "ltp-2.1x", "--out", str(kept)])
        assert not (kept / "sst2" / "ltp-2.1x-seed0" / "soft.jsonl").exists()

    def test_a_folder_of_another_seed_is_refused(self, tmp_path):
        trainings.write(tmp_path / "work", "sst2", "dense", 1, trainings.result("dense", 0, 0.9, 1.0))
        (place,) = records.places(tmp_path / "work")
        with pytest.raises(ValueError, match="the folder says seed 1, its result 0"):
            records.keep(place, tmp_path / "kept")

    def test_what_differs_from_the_recipe_is_said(self):
        pytest.importorskip("datasets", reason="tokprune train needs it")
        made = trainings.result("top", 0, 0.9, 2.0, model="dense-seed0")
        parsed = records._parsed(recipes.recipe("sst2", "top-2.1x").arguments)
        made["arguments"] = parsed | made["arguments"] | {"speedup": parsed["speedup"]}
        assert records.differences("sst2", "top-2.1x", 0, made) == []
        made["arguments"] |= {"bins": 7}
        assert records.differences("sst2", "top-2.1x", 0, made) == ["bins was 7, recipes.py says 10"]
        assert "it started from 'dense-seed0', not from 'dense-seed1'" in records.differences("sst2", "top-2.1x", 1, made)
        assert records.differences("sst2", "top-5x", 0, made) == ["recipes.py has no 'top-5x' for 'sst2'"]


class TestRunning:
    @pytest.fixture
    def ran(self, monkeypatch):
        """Commands that were given, as options; each leaves a finished training, but for those of a method that fails."""
        given, failing = [], set()

        def run(line):
            method, words = line[4], line[5:]
            options = {name: words[words.index(name) + 1] for name in ("--model", "--output", "--seed", "--data")}
            given.append({"method": method, **options})
            if method not in failing:
                data, folder = Path(options["--output"]).parts[-2:]
                content = trainings.result(method, int(options["--seed"]), 0.9, 2.0, 2.2, options["--model"])
                trainings.write(Path(options["--output"]).parents[1], data, folder.rsplit("-seed", 1)[0], int(options["--seed"]), content)
            return type("Done", (), {"returncode": int(method in failing)})

        monkeypatch.setattr(train_all.subprocess, "run", run)
        monkeypatch.setattr(train_all, "differences", lambda *_: [])
        return given, failing

    def arguments(self, folder, *more):
        return ["--work", str(folder / "work"), "--texts", "texts", "--out", str(folder / "kept"), *more]

    def test_a_pruned_training_starts_from_the_dense_one_of_its_seed(self, ran, tmp_path):
        assert train_all.main(self.arguments(tmp_path, "--data", "sst2", "--only", "ltp-2.1x", "--seeds", "0", "1")) == 0
        assert [(one["method"], one["--seed"]) for one in ran[0]] == [("dense", "0"), ("dense", "1"), ("ltp", "0"), ("ltp", "1")]
        for one in ran[0][2:]:
            assert one["--model"] == str(tmp_path / "work" / "sst2" / f"dense-seed{one['--seed']}" / "model")
            assert one["--data"] == str(Path("texts") / "sst2")
        assert ran[0][0]["--model"] == recipes.BASE
        assert len(list(records.places(tmp_path / "kept"))) == 4

    def test_finished_ones_are_not_run_again(self, ran, tmp_path):
        more = ("--data", "mrpc", "--seeds", "0")
        assert train_all.main(self.arguments(tmp_path, *more)) == train_all.main(self.arguments(tmp_path, *more)) == 0
        assert len(ran[0]) == len(recipes.TRAININGS["mrpc"])

    def test_points_of_finished_trainings(self, tmp_path, monkeypatch):
        """Every pruned one is scored at other speeds on its own data, and what is kept of that names no folder."""
        trainings.write_all(tmp_path / "work")
        given = []

        def run(command):
            given.append(command)
            point = {"speedup": 2.0, "pruning": {}, "evaluation": trainings.result("ltp", 0, 0.8, 2.1)["evaluation"]}
            Path(command[command.index("--json") + 1]).write_text(json.dumps({"model": "/home/me", "operating_points": [point]}))
            return type("Done", (), {"returncode": 0})

        monkeypatch.setattr(train_all.subprocess, "run", run)
        options = ["--texts", "texts", "--out", str(tmp_path / "kept"), "--data", "sst2"]
        assert train_all.main(["--points", str(tmp_path / "work"), *options]) == 0
        assert len(given) == 4 and all("eval" in command and str(Path("texts") / "sst2") in command for command in given)
        assert all(command[command.index("--max-length") + 1] == "64" for command in given)
        (ltp,) = [one for one in TrainingResults(tmp_path / "kept").trained if one.name == "ltp-2.1x"]
        assert ltp.points(0) == [(2.1, 80.0)]
        dense = TrainingResults(tmp_path / "kept").dense("sst2")
        assert list(section.speeds(ltp, dense))[1] == (2.1, pytest.approx(-10.5), " with its pruning scaled")
        (tmp_path / "kept" / "sst2" / "ltp-2.1x-seed1" / "points.json").unlink()
        behind = 80.0 - dense.scores[0]
        assert list(section.speeds(ltp, dense))[1:] == [(2.1, pytest.approx(behind), " with its pruning scaled")], "of the seeds scored"
        assert "/home/me" not in (tmp_path / "kept" / "sst2" / "ltp-2.1x-seed0" / "points.json").read_text()

    def test_a_failure_stops(self, ran, tmp_path, capsys):
        ran[1].add("dense")
        assert train_all.main(self.arguments(tmp_path, "--seeds", "0")) == 1
        assert len(ran[0]) == 1 and "sst2/dense-seed0 failed" in capsys.readouterr().err

    @pytest.mark.parametrize("arguments", ["", "--work w", "--collect c --work w", "--work w --texts t --data x"])
    def test_wrong_arguments_are_refused(self, arguments, capsys):
        with pytest.raises(SystemExit):
            train_all.main(arguments.split())
        assert "error:" in capsys.readouterr().err


class TestSection:
    def cells(self, text, beginning):
        line = next(line for line in text.splitlines() if line.startswith(f"| {beginning} |"))
        return line.removesuffix(" |").split(" | ")[1:]

    def test_nothing_is_written_before_there_are_results(self, tmp_path):
        assert section.training_section(tmp_path) == section.training_section(tmp_path / "none") == ""

    def test_means_differences_and_baselines(self, kept):
        text = section.training_section(kept)
        assert self.cells(text, "dense") == ["2", "90.50 ± 0.71", "", "", "1.00x", "1.10x", "2.50x (64)"]
        assert self.cells(text, "LTP, `ltp-2.1x`") == ["2", "90.00 ± 0.71", "-0.50", "2.2x", "2.00x", "2.20x", "5.00x (64)"]
        assert self.cells(text, "fixed keep ratios (SpAtten)") == ["1", "86.00", "-2.00", "", "1.50x", "1.65x", "3.75x (64)"]
        assert "| training | seeds | F1 |" in text and "A CPU, torch 2.13.0, transformers 5.23.0)" in text
        assert "MRPC, test rows (872):" in text and text.index("SST-2") < text.index("MRPC, test rows")

    def test_published_numbers_stand_beside_ours(self, kept):
        text = section.training_section(kept)
        assert self.cells(text, "ToP as published, BERT-base") == ["", "93.4", "", "", "about 1.8x", "", "4.66x (64)"]
        assert "LTP reports up to 2.1x" in text

    def test_the_headline_stays_within_a_point(self, kept):
        assert "1 point below dense: 2.00x on sst2 (LTP, `ltp-2.1x`)." in section.training_section(kept)

    def test_no_headline_where_everything_falls_further(self, tmp_path):
        work = tmp_path / "work"
        trainings.write(work, "sst2", "dense", 0, trainings.result("dense", 0, 0.9, 1.0))
        trainings.write(work, "sst2", "topk", 0, trainings.result("topk", 0, 0.8, 2.0))
        text = section.training_section(work)
        assert "point below dense:" not in text and "\n\n\n" not in text

    def test_without_a_dense_model_of_the_seed_there_is_no_difference(self, kept):
        shutil.rmtree(kept / "sst2" / "dense-seed1")
        shutil.rmtree(kept / "mrpc" / "dense-seed0")
        text = section.training_section(kept)
        assert self.cells(text, "LTP, `ltp-2.1x`")[2] == "-0.50"
        assert self.cells(text, "fixed keep ratios (SpAtten)")[2] == ""

    def test_every_row_has_a_cell_for_every_header(self, kept):
        assert {line.count("|") for line in section.training_section(kept).splitlines() if line.startswith("|")} == {9}

    def test_names_that_have_no_recipe_come_last(self, kept):
        shutil.copytree(kept / "sst2" / "ltp-2.1x-seed0", kept / "sst2" / "another-seed0")
        assert [one.name for one in TrainingResults(kept).of("sst2")] == ["dense", "ltp-2.1x", "top-3x", "another"]

    def test_published_padding_is_what_the_lengths_say(self):
        torch = pytest.importorskip("torch")
        config = pytest.importorskip("transformers").BertConfig()
        from tokprune_kernels import flops

        folder = Path(train_all.__file__).parent / "lengths"
        for data, theirs in TOP.items():
            lengths = torch.tensor(json.loads((folder / f"{data}.json").read_text()))
            padded = flops.dense_flops(lengths, config, padded_to=theirs.maximum).sum()
            assert float(padded / flops.dense_flops(lengths, config).sum()) == pytest.approx(theirs.padding, abs=0.005)


class TestPlots:
    @pytest.fixture
    def plots(self):
        pytest.importorskip("matplotlib", reason="the plots need matplotlib")
        import training_plots

        return training_plots

    def test_small_and_the_same_every_time(self, plots, kept):
        first = {path.name: path.read_bytes() for path in plots.draw(kept)}
        assert sorted(first) == ["course.png", "layers.png", "score.png"]
        assert all(content.startswith(b"\x89PNG") and len(content) < 150_000 for content in first.values())
        assert {path.name: path.read_bytes() for path in plots.draw(kept)} == first
        assert "(benches/results/training/score.png)" in section.training_section(kept)

    def test_nothing_is_drawn_without_trainings(self, plots, tmp_path):
        assert plots.draw(tmp_path) == [] and list(tmp_path.iterdir()) == []

    def test_one_data_set_without_a_dense_model(self, plots, tmp_path):
        trainings.write(tmp_path, "sst2", "top-2.1x", 0, trainings.result("top", 0, 0.9, 2.0, 2.2))
        assert len(plots.draw(tmp_path)) == 3

    def test_every_method_has_a_look_of_its_own(self, plots):
        assert set(plots.LOOKS) == set(METHODS) and len(set(plots.LOOKS.values())) == len(METHODS)
