"""Data sets: read from every place they may be, understood, tokenised, batched; and what is said of those that cannot be used."""

import gzip
import json

import datasets
import pytest
import torch
from tokprune_train.data.encoding import Collator, by_length, encode, model_inputs
from tokprune_train.data.heads import Head, head_of
from tokprune_train.data.reading import DataError, pick_split, read_dataset
from tokprune_train.data.task import Columns, check_texts, find_columns, find_task

ROWS = [{"text": "a cat", "label": 0}, {"text": "two cats", "label": 1}]
COLUMNS = Columns("text", None, "label")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    """What `datasets` keeps of the files that it reads goes to a folder of the test's own."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def write(path, rows=ROWS):
    """JSON lines, packed where the name says so."""
    text = "".join(json.dumps(row) + "\n" for row in rows)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text, encoding="utf-8")
    return str(path)


def rows_of(**columns):
    return datasets.Dataset.from_dict(columns)


class TestReading:
    @pytest.mark.parametrize("name", ["some.jsonl", "some.json", "some.jsonl.gz", "some.json.gz"])
    def test_one_file(self, name, tmp_path):
        data = read_dataset(write(tmp_path / name))
        assert list(data) == ["train"] and data["train"].to_list() == ROWS

    def test_quietly(self, tmp_path, capfd):
        """No bars of `datasets` beside what the program says itself; whoever wants them elsewhere still gets them."""
        read_dataset(write(tmp_path / "some.jsonl"))
        assert capfd.readouterr().err == ""
        assert not datasets.utils.are_progress_bars_disabled()

    def test_folder_of_files(self, tmp_path):
        """Each split under any of its usual names."""
        write(tmp_path / "train.jsonl", ROWS * 3)
        write(tmp_path / "dev.jsonl.gz", ROWS * 2)
        write(tmp_path / "test.json", ROWS)
        (tmp_path / "README.md").write_text("not data")
        data = read_dataset(str(tmp_path))
        assert {name: len(rows) for name, rows in data.items()} == {"train": 6, "validation": 4, "test": 2}

    def test_folder_that_datasets_saved(self, tmp_path):
        datasets.DatasetDict(validation=datasets.Dataset.from_list(ROWS)).save_to_disk(tmp_path / "saved")
        data = read_dataset(str(tmp_path / "saved"))
        assert list(data) == ["validation"] and data["validation"].to_list() == ROWS

    def test_single_split_that_datasets_saved(self, tmp_path):
        datasets.Dataset.from_list(ROWS).save_to_disk(tmp_path / "saved")
        data = read_dataset(str(tmp_path / "saved"))
        assert list(data) == ["train"] and data["train"].to_list() == ROWS

    def test_hub(self, monkeypatch):
        """Name and configuration go to `datasets` as they are."""
        asked = []
        monkeypatch.setattr("tokprune_train.data.reading.load_dataset", lambda *names: asked.append(names) or datasets.DatasetDict())
        read_dataset("nyu-mll/glue:sst2")
        read_dataset("stanfordnlp/imdb")
        assert asked == [("nyu-mll/glue", "sst2"), ("stanfordnlp/imdb", None)]

    def test_hub_without_the_hub(self):
        with pytest.raises(DataError, match="'no/such' is no file and no folder here"):
            read_dataset("no/such", local_only=True)

    def test_hub_that_fails(self, monkeypatch):
        def fail(*names):
            raise ConnectionError("no route\nand a second line")

        monkeypatch.setattr("tokprune_train.data.reading.load_dataset", fail)
        with pytest.raises(DataError, match="cannot load the data set 'a/b' from the hub: ConnectionError: no route$"):
            read_dataset("a/b")

    def test_empty_folder(self, tmp_path):
        with pytest.raises(DataError, match="no data in .*expected train.jsonl"):
            read_dataset(str(tmp_path))

    def test_wrong_suffix(self, tmp_path):
        with pytest.raises(DataError, match=r"rows.xml'.*must be one of \.jsonl.*\.csv"):
            read_dataset(write(tmp_path / "rows.xml"))

    @pytest.mark.parametrize("content", ["text,label\na,1\n", '{"text": "a"\n', ""], ids=["csv", "cut off", "empty"])
    def test_file_that_is_not_json_lines(self, content, tmp_path):
        (tmp_path / "rows.jsonl").write_text(content)
        with pytest.raises(DataError, match="cannot read .*rows.jsonl' as JSON lines") as raised:
            read_dataset(str(tmp_path / "rows.jsonl"))
        assert "\n" not in str(raised.value)

    def test_pick_split(self):
        data = datasets.DatasetDict({name: rows_of(text=[name]) for name in ("train", "validation_matched", "other")})
        assert pick_split(data, None, ("validation", "test"))[0] == "validation_matched"
        assert pick_split(data, "other", ("train",))[1]["text"] == ["other"]
        with pytest.raises(DataError, match="no split 'test' in the data set; it has 'train', 'validation_matched', 'other'"):
            pick_split(data, None, ("test",))
        with pytest.raises(DataError, match="no split 'dev'"):
            pick_split(data, "dev", ("train",))


class TestColumns:
    def test_usual_names(self):
        assert find_columns(["idx", "sentence", "label"]) == Columns("sentence", None, "label")
        assert find_columns(["question1", "question2", "labels"]) == Columns("question1", "question2", "labels")
        assert find_columns(["sentence1", "sentence2", "score"]) == Columns("sentence1", "sentence2", "score")

    def test_given_names(self):
        found = find_columns(["a", "b", "c", "text", "label"], text="a", pair="b", label="c")
        assert found == Columns("a", "b", "c")

    @pytest.mark.parametrize("names, given", [(["label"], {}), (["text"], {}), (["text", "label"], {"pair": "other"})])
    def test_missing(self, names, given):
        what = "pair" if given else {"label": "text", "text": "label"}[names[0]]
        with pytest.raises(DataError, match=f"no {what} column.*the data has {', '.join(map(repr, names))}.*--{what}-column"):
            find_columns(names, **given)

    def test_rows_without_text(self):
        with pytest.raises(DataError, match="row 1 has no text in 'text', but None"):
            check_texts(rows_of(text=["a", None], label=[0, 1]), COLUMNS.text, COLUMNS.pair)
        with pytest.raises(DataError, match="no column 'text' in this split; it has 'sentence'"):
            check_texts(rows_of(sentence=["a"]), COLUMNS.text, COLUMNS.pair)
        check_texts(rows_of(text=["a", ""]), COLUMNS.text, COLUMNS.pair)  # an empty text is a text


def task_of(labels, feature=None, **more):
    rows = rows_of(text=["some"] * len(labels), label=labels, **more)
    if feature is not None:
        rows = rows.cast_column("label", feature)
    return find_task(rows, COLUMNS)


class TestTask:
    def test_numbers(self):
        task = task_of([2, 0, 1, 1])
        assert (task.num_labels, task.regression) == (3, False)
        assert task.labels == ("LABEL_0", "LABEL_1", "LABEL_2")
        assert [task.target(value) for value in (2, 0)] == [2, 0]

    def test_numbers_with_names(self):
        task = task_of([1, 0, 1], label_name=["good", "bad", "good"])
        assert task.labels == ("bad", "good") and task.target(1) == 1

    def test_strings(self):
        """In the order of the alphabet, so that the numbers do not depend on the order of the rows."""
        task = task_of(["pos", "neg", "pos"])
        assert task.labels == ("neg", "pos") and task.target("pos") == 1

    def test_class_label(self):
        """The feature says how many there are, even if the rows do not show all of them."""
        task = task_of([2, 0], datasets.ClassLabel(names=["a", "b", "c"]))
        assert task.labels == ("a", "b", "c") and task.target(2) == 2

    def test_regression(self):
        task = task_of([0.5, 3.0, 1.25])
        assert (task.num_labels, task.regression, task.labels) == (1, True, None)
        assert task.target(3) == 3.0

    def test_whole_floats_are_classes(self):
        task = task_of([0.0, 1.0, 1.0])
        assert task.num_labels == 2
        assert task.target(1.0) == 1 and isinstance(task.target(1.0), int)

    def test_strings_of_numbers(self):
        """What a program wrote as text is a number all the same, and ten classes are in the order of their numbers."""
        task = task_of(["0.5", "3", "1.25"])
        assert task.regression and [task.target(value) for value in ("3", 1.25, "-2e3")] == [3.0, 1.25, -2000.0]
        task = task_of([str(number) for number in range(11)])
        assert task.labels == tuple(str(number) for number in range(11)) and task.target("10") == 10

    def test_names_beside_what_is_no_class(self):
        """Numbers with a fraction stay numbers, and rows without a label are said to be so."""
        assert task_of([0.5, 0.25], label_name=["a", "b"]).regression
        rows = rows_of(text=["a", "b"], label=[0.5, 0.25], label_name=["low", "high"])
        assert [row["labels"] for row in encode(rows, find_task(rows, COLUMNS), Words(), 4)] == [0.5, 0.25]
        unlabelled = rows_of(text=["a"], label=[-1], label_name=["none"])
        with pytest.raises(DataError, match="label -1 is none that the task has"):
            encode(unlabelled, task_of([0, 1]), Words(), 4)
        with pytest.raises(DataError, match="does not give each number in 'label' one name"):
            task_of([0, 1, 1], label_name=["a", "b", "c"])

    def test_names_are_read_by_each_splits_own_numbers(self):
        """A split whose ClassLabel has another order says the same by other numbers."""
        task = task_of([0, 1], datasets.ClassLabel(names=["neg", "pos"]))
        other = rows_of(text=["a", "b"], label=[0, 1]).cast_column("label", datasets.ClassLabel(names=["pos", "neg"]))
        assert [row["labels"] for row in encode(other, task, Words(), 4)] == [1, 0]

    @pytest.mark.parametrize(
        "labels, message",
        [
            ([], "no rows"),
            ([0, None], "some rows have no 'label'"),
            ([-1, -1], "not labelled"),
            ([0, 2], "0 to 2 without holes, got 0, 2"),
            ([1, 1], "the same label"),
            ([0, 0], "the same label"),
            (["a", "a"], "the same label"),
            ([[0], [1]], r"numbers or strings, got \[0\]"),
        ],
    )
    def test_unusable(self, labels, message):
        with pytest.raises(DataError, match=message):
            task_of(labels)

    def test_label_that_training_does_not_have(self):
        with pytest.raises(DataError, match="label 'new' is none that the task has: 'neg', 'pos'"):
            task_of(["pos", "neg"]).target("new")

    def test_regression_target_that_is_no_number(self):
        with pytest.raises(DataError, match="'high'.*number"):
            task_of([0.5, 1.0]).target("high")
        with pytest.raises(DataError, match="None.*number"):
            task_of([0.5, 1.0]).target(None)


NAMED, UNNAMED, NUMBER = Head(("pos", "neg")), Head(("LABEL_0", "LABEL_1")), Head(None)


def found_by(head, labels, feature=None, **more):
    """(names, the targets of the rows) of a task that is read in the terms of a head."""
    rows = rows_of(text=["some"] * len(labels), label=labels, **more)
    if feature is not None:
        rows = rows.cast_column("label", feature)
    task = find_task(rows, COLUMNS, head)
    return task.labels, [row["labels"] for row in encode(rows, task, Words(), 4)]


class TestTaskOfATrainedHead:
    def test_its_classes_are_the_datas_whatever_their_numbers(self):
        """The order of the model's outputs stands: of names, of a ClassLabel's, of those in a column, in another case."""
        assert found_by(NAMED, ["neg", "pos"]) == (("pos", "neg"), [1, 0])
        assert found_by(NAMED, [0, 1], datasets.ClassLabel(names=["neg", "pos"])) == (("pos", "neg"), [1, 0])
        assert found_by(NAMED, [0, 1], label_name=["neg", "pos"]) == (("pos", "neg"), [1, 0])
        assert found_by(NAMED, ["NEG", "Pos"]) == (("pos", "neg"), [1, 0])

    def test_numbers_are_its_own(self):
        assert found_by(NAMED, [0, 1]) == (("pos", "neg"), [0, 1])
        assert found_by(UNNAMED, [1, 0], label_name=["pos", "neg"]) == (("neg", "pos"), [1, 0])
        assert found_by(UNNAMED, ["1", "0"]) == (UNNAMED.names, [1, 0])
        assert found_by(Head(("a", "b", "c")), ["a", "c"]) == (("a", "b", "c"), [0, 2]), "one class without rows"

    def test_a_number(self):
        """Whole numbers, too, and written as text."""
        assert found_by(NUMBER, [0.5, 2.0]) == (None, [0.5, 2.0])
        assert found_by(NUMBER, [-1, 3]) == (None, [-1.0, 3.0])
        assert found_by(NUMBER, ["1", "2.5"]) == (None, [1.0, 2.5])

    @pytest.mark.parametrize(
        "head, labels, message",
        [
            (NAMED, ["good", "bad"], "label 'good' is none that the task has: 'pos', 'neg'.*the data's are 'bad', 'good'.*id2label"),
            (UNNAMED, ["good", "bad"], "label 'good' is none that the task has: 'LABEL_0', 'LABEL_1'"),
            (NAMED, [0, 1, 2], "label 2 is none that the task has: the model has 2 classes"),
            (NAMED, [0, -1], "not labelled"),
            (NAMED, [0.5, 1.0], "numbers with a fraction .*one of 2 classes"),
            (NUMBER, ["pos", "neg"], "the model answers with a number .*labels are 'pos', 'neg'"),
            (NUMBER, [0.5, float("nan")], "finite"),
            (NUMBER, [0.5, 1e300], "finite"),
            (NUMBER, ["0.5", "nan"], "finite"),
        ],
    )
    def test_another_task(self, head, labels, message):
        with pytest.raises(DataError, match=message):
            found_by(head, labels)

    def test_what_a_configuration_says(self):
        from transformers import BertConfig

        classifier = {"architectures": ["BertForSequenceClassification"]}
        assert head_of(BertConfig(id2label={0: "neg", 1: "pos"}, **classifier)) == Head(("neg", "pos"))
        assert head_of(BertConfig(num_labels=1, **classifier)) == Head(None)
        assert head_of(BertConfig(architectures=["BertForMaskedLM"])) is None
        for problem, said in (("multi_label_classification", "several labels"), ("regression", "predicts 3 numbers")):
            with pytest.raises(ValueError, match=said):
                head_of(BertConfig(num_labels=3, problem_type=problem, **classifier))


class Words:
    """A tokenizer of words: [CLS] = 1, then the length of each word; pairs after one another."""

    def __call__(self, texts, pairs, truncation, max_length):
        assert truncation
        pairs = pairs or [""] * len(texts)
        firsts, seconds = ([[len(word) for word in text.split()] for text in side] for side in (texts, pairs))
        ids = [[1, *first, *second][:max_length] for first, second in zip(firsts, seconds)]
        types = [([0] * (1 + len(first)) + [1] * len(second))[:max_length] for first, second in zip(firsts, seconds)]
        return {"input_ids": ids, "token_type_ids": types, "attention_mask": [[1] * len(row) for row in ids]}


class TestEncoding:
    def test_rows(self):
        rows = rows_of(text=["one two three", "a"], label=["x", "y"])
        encoded = encode(rows, find_task(rows, COLUMNS), Words(), 3)
        assert encoded[0] == {"input_ids": [1, 3, 3], "token_type_ids": [0, 0, 0], "attention_mask": [1, 1, 1], "labels": 0}
        assert encoded[1]["input_ids"] == [1, 1] and encoded[1]["labels"] == 1

    def test_pairs(self):
        rows = rows_of(text=["one"], other=["two words"], label=[0.5])
        columns = Columns("text", "other", "label")
        row = encode(rows, find_task(rows, columns), Words(), 8)[0]
        assert row["input_ids"] == [1, 3, 3, 5] and row["token_type_ids"] == [0, 0, 1, 1] and row["labels"] == 0.5

    def test_collator(self):
        rows = [
            {"input_ids": [5, 6, 7], "attention_mask": [1, 1, 1], "token_type_ids": [0, 0, 1], "labels": 1},
            {"input_ids": [8], "attention_mask": [1], "token_type_ids": [0], "labels": 0},
        ]
        batch = Collator(9)(rows)
        assert batch["input_ids"].tolist() == [[5, 6, 7], [8, 9, 9]] and batch["input_ids"].dtype == torch.int64
        assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
        assert batch["token_type_ids"].tolist() == [[0, 0, 1], [0, 0, 0]]
        assert batch["labels"].tolist() == [1, 0] and batch["labels"].dtype == torch.int64
        assert sorted(model_inputs(batch)) == ["attention_mask", "input_ids", "token_type_ids"]

    def test_what_the_teacher_said_rides_along(self):
        rows = [
            {"input_ids": [5, 6], "attention_mask": [1, 1], "labels": 0.5, "teacher_logits": torch.tensor([0.1])},
            {"input_ids": [7], "attention_mask": [1], "labels": 2.0, "teacher_logits": torch.tensor([0.2])},
        ]
        for row, importance in zip(rows, ([0.75, 0.25], [1.0])):
            row["teacher_importance"] = torch.tensor(importance)
        batch = Collator(0)(rows)
        assert batch["teacher_logits"].shape == (2, 1)
        assert batch["teacher_importance"].tolist() == [[0.75, 0.25], [1.0, 0.0]]
        assert batch["labels"].dtype == torch.float32
        assert "token_type_ids" not in batch and "teacher_logits" not in model_inputs(batch)

    def test_by_length(self):
        rows = [{"input_ids": [0] * length} for length in (3, 9, 1, 4, 7)]
        assert list(by_length(rows, 2)) == [[1, 4], [3, 0], [2]]
