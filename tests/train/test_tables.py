"""Local files of rows: read as they are now, whatever their path, and what is wrong with one is said with its name and line."""

import gzip
import json
import os

import datasets
import pytest
from tokprune_train.data.reading import DataError, read_dataset


def lines(*rows):
    return "".join(row + "\n" if isinstance(row, str) else json.dumps(row) + "\n" for row in rows)


def read(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_dataset(str(path))["train"].to_list()


def refused(path, content):
    with pytest.raises(DataError, match="a.json") as caught:
        read(path, content)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
    return str(caught.value)


def test_another_file_of_the_same_path_and_time(tmp_path):
    for text in ("one", "two"):
        path = tmp_path / "a.jsonl"
        path.write_text(lines({"text": text, "label": 0}))
        os.utime(path, (1e9, 1e9))
        assert read_dataset(str(path))["train"]["text"] == [text]
    assert not read_dataset(str(path))["train"].cache_files


@pytest.mark.parametrize("name", ["a[bc].jsonl", "a*.jsonl", "a?.jsonl", "file::a.jsonl", "x://a.jsonl", "a b é.jsonl"])
@pytest.mark.parametrize("in_folder", [False, True])
def test_signs_in_a_path(tmp_path, name, in_folder):
    (tmp_path / "ab.jsonl").write_text(lines({"text": "another file"}))
    path = tmp_path / name
    if in_folder:
        path.mkdir(parents=True)
        (path / "train.jsonl").write_text(lines({"text": "this one"}))
    else:
        path.parent.mkdir(exist_ok=True)
        path.write_text(lines({"text": "this one"}))
    assert read_dataset(str(path))["train"].to_list() == [{"text": "this one"}]


def test_a_saved_folder_with_colons(tmp_path):
    datasets.Dataset.from_dict({"text": ["a"]}).save_to_disk(tmp_path / "saved")
    (tmp_path / "saved").rename(tmp_path / "a::b")
    with pytest.raises(DataError, match="rename the folder"):
        read_dataset(str(tmp_path / "a::b"))


def test_saved_folders_stay_inside(tmp_path):
    for name in ("mine", "others"):
        datasets.Dataset.from_dict({"text": [name]}).save_to_disk(tmp_path / name)
    state = json.loads((tmp_path / "mine" / "state.json").read_text())
    state["_data_files"][0]["filename"] = f"../others/{state['_data_files'][0]['filename']}"
    (tmp_path / "mine" / "state.json").write_text(json.dumps(state))
    with pytest.raises(DataError, match="which is not in it"):
        read_dataset(str(tmp_path / "mine"))
    (tmp_path / "mine" / "state.json").write_text("{")
    with pytest.raises(DataError, match="mine', which `datasets` seems to have saved"):
        read_dataset(str(tmp_path / "mine"))


def test_a_column_that_is_null_for_long(tmp_path):
    rows = [{"text": "a", "note": None}] * 20_000 + [{"text": "b", "note": "seen"}, {"text": "c", "late": 1}]
    found = read(tmp_path / "a.jsonl", lines(*rows))
    assert found[-2:] == [{"text": "b", "note": "seen", "late": None}, {"text": "c", "note": None, "late": 1}] and len(found) == len(rows)


def test_a_late_change_of_type(tmp_path):
    rows = [{"text": "1", "label": 0}] * 20_000
    said = refused(tmp_path / "a.jsonl", lines(*rows, {"text": "2", "label": "no"}))
    assert "line 20001: 'label' is a string, and a number in line 1" in said
    assert read(tmp_path / "a.jsonl", lines(*rows, {"text": "2", "label": 0.5}))[0]["label"] == 0.0, "a regression may begin whole"


def test_texts_stay_texts(tmp_path):
    rows = [{"text": text} for text in ("2020-01-01", "007", "1e5", "null", "a\u2028b\x85c\x0cd", "")]
    assert read(tmp_path / "a.jsonl", lines(*rows)) == rows
    assert read(tmp_path / "a.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\r\n" for row in rows)) == rows


@pytest.mark.parametrize("name", ["a.jsonl", "a.json.gz"])
def test_encodings(tmp_path, name):
    packed = gzip.compress if name.endswith(".gz") else bytes
    assert read(tmp_path / name, packed(b"\xef\xbb\xbf" + lines({"text": "a"}).encode())) == [{"text": "a"}], "a byte order mark"
    for broken, line in ((lines({"text": "a"}).encode("utf-16"), 1), (lines({"text": "a"}).encode() + b'{"text": "caf\xe9"}\n', 2)):
        assert f"line {line}: not UTF-8 (byte 0x" in refused(tmp_path / name, packed(broken))


@pytest.mark.parametrize(
    "row, said",
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"text": ' * 100_000, "nested too deeply"),
        ('{"id": ' + "9" * 400 + "}", "999999999999... (400 characters) is past what 64 bits hold"),
        ('{"id": ' + "9" * 5000 + "}", "999999999999... (5000 characters) is past what 64 bits hold"),
        ('{"id": 9223372036854775808}', "9223372036854775808 is past what 64 bits hold: write it in quotes"),
        ('{"score": 1e999}', "1e999 is past what 64 bits hold"),
        ('{"score": NaN}', "NaN is no JSON number"),
        ('{"text": "a", "text": "b"}', "'text' is there twice"),
        (r'{"text": "\ud800"}', "half of a surrogate pair"),
        ('{"text": "a"} {"text": "b"}', "something stands behind its end"),
        ('{"text": "a', "not JSON"),
        ("3", "not a JSON object, but 3"),
    ],
)
def test_rows_that_are_none(tmp_path, row, said):
    assert f"line 3: {'' if said.startswith('not') else 'not JSON, one object a line ('}{said}" in refused(tmp_path / "a.jsonl", lines({"text": "a"}, "", row))


def test_the_largest_ids(tmp_path):
    rows = [{"id": 2**63 - 1}, {"id": -(2**63)}]
    assert read(tmp_path / "a.jsonl", lines(*rows)) == rows


@pytest.mark.parametrize("indent", [None, 1])
def test_a_list_in_json(tmp_path, indent):
    rows = [{"text": "a, ]b"}, {"text": "c\u2028"}]
    for name in ("a.json", "a.jsonl"):
        assert read(tmp_path / name, "\n" + json.dumps(rows, indent=indent) + "\n\n") == rows
    assert "line 2: not JSON (" in refused(tmp_path / "a.json", '[{"text": "a"},\n {"text": a}]')
    assert "line 2: not JSON (9" in refused(tmp_path / "a.json", '[{"text": "a"},\n {"id": ' + "9" * 30 + "}]")
    assert "line 2: not a JSON object" in refused(tmp_path / "a.json", '[{"text": "a"},\n 3]')
    for cut in ('[{"text": "a"},', '[{"text": "a"}\n', '[{"text": "a"} {"text": "b"}]', '[{"text": "a"}] x', "["):
        assert "line 1: not" in refused(tmp_path / "a.json", cut)


def test_lists_that_are_not_alike(tmp_path):
    assert "its lists or objects are not alike" in refused(tmp_path / "a.jsonl", lines({"at": [1]}, {"at": ["a"]}))


@pytest.mark.parametrize("packed", [False, True])
def test_tables(tmp_path, packed):
    pack, end = (gzip.compress, ".gz") if packed else (bytes, "")
    csv = '\ufefftext,label,code,part\n"a, ""b""\nc",0,007,0.5\n12,1,3,2\r\n\n'
    rows = [{"text": 'a, "b"\nc', "label": 0, "code": "007", "part": 0.5}, {"text": "12", "label": 1, "code": "3", "part": 2.0}]
    assert read(tmp_path / f"a.csv{end}", pack(csv.encode())) == rows
    assert read(tmp_path / f"a.tsv{end}", pack(b'sentence\tlabel\n"a, b\t1\n\xe2\x80\xa8\t0\n')) == [{"sentence": '"a, b', "label": 1}, {"sentence": "\u2028", "label": 0}]


@pytest.mark.parametrize(
    "name, content, said",
    [
        ("a.csv", "text,label\n\n'a\nb',1\n", "line 3: 1 cells, but line 1 names 2 columns"),
        ("a.csv", 'text,label\n"a"b,1\n', "line 2: not CSV"),
        ("a.csv", 'text,label\nb,1\n"a,1\n', "not CSV"),
        ("a.csv", "text,text\na,b\n", "line 1: it must name every column, each differently, got 'text', 'text'"),
        ("a.tsv", "", "line 1: it must name every column"),
        ("a.tsv", "text\tlabel\n", "it holds no row"),
        ("a.tsv", b"text\tlabel\na\t1\n\xff\t0\n", "line 3: not UTF-8"),
    ],
)
def test_tables_that_are_none(tmp_path, name, content, said):
    with pytest.raises(DataError, match=name) as caught:
        read(tmp_path / name, content)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for source, said in ((tmp_path / "fifo", "neither a file nor a folder"), (tmp_path / "no.jsonl", "no such file"), ("", "no data set was named")):
        with pytest.raises(DataError, match=said):
            read_dataset(str(source))


def test_two_files_for_a_split(tmp_path):
    for name in ("dev.jsonl", "validation.csv"):
        (tmp_path / name).write_text(lines({"text": "a"}))
    with pytest.raises(DataError, match="two files for the split 'validation'.*'validation.csv' and 'dev.jsonl'"):
        read_dataset(str(tmp_path))
