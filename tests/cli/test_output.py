"""Where results are written: refused before any work is done, whole or not at all afterwards."""

import errno
import json
import os
from pathlib import Path

import pytest
from tokprune_kernels.cli import output, storing

LONG = "n" * 300
FOLDERS = {
    "calibrate": "calibrate MODEL --text FILE --speedup 1.5 --output",
    "import": "import ltp FOLDER --max-length 8 --output",
    "train": "train dense --model MODEL --data DATA --output",
    "answers": "train hard --model MODEL --data DATA --output OUT --answers",
}
FILES = {
    "bench": "bench MODEL --lengths 5 --json",
    "show": "show MODEL TEXT --json",
    "demo": "demo --json",
    "env": "env --json",
    "calibrate": "calibrate MODEL --text FILE --speedup 1.5 --json",
    "eval": "eval MODEL --data DATA --json",
    "import": "import ltp FOLDER --output OUT --max-length 8 --json",
}


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    Path("dangling").symlink_to("nowhere")
    os.mkfifo("fifo")


def refused(tokprune, command, path):
    before = sorted(Path().iterdir())
    code, out, errors = tokprune(*command.split(), path)
    assert code == 2 and not out and errors.count("\n") == 1 and len(errors) < 500, errors
    assert sorted(Path().iterdir()) == before
    return errors


@pytest.mark.parametrize("command", FOLDERS.values(), ids=FOLDERS)
def test_folders_that_cannot_be(tokprune, command):
    for path, said in {
        "": "it has no name",
        " ": "it has no name",
        "file": "'file' is a file",
        "file/a": "'file' is a file",
        "dangling": "'dangling' is a link to what is not there",
        "dangling/a": "'dangling' is a link to what is not there",
        "fifo": "'fifo' is a fifo",
        "/dev/null": "'/dev/null' is no folder",
        LONG: "File name too long",
        f"a/b/{LONG}": "File name too long",
        "a/" * 3000: "File name too long",
    }.items():
        assert said in refused(tokprune, command, path)


@pytest.mark.parametrize("command", FILES.values(), ids=FILES)
def test_files_that_cannot_be(tokprune, command):
    Path("folder").mkdir()
    for path, said in {
        "": "it has no name",
        "folder": "it is a folder",
        "no/such/file": "there is no folder",
        "file/a": "there is no folder",
        "fifo": "it is a fifo",
        LONG: "File name too long",
    }.items():
        assert said in refused(tokprune, command, path)


def test_folders_that_nothing_can_be_written_in(tokprune, monkeypatch):
    """As the system says: who runs the tests may write everywhere."""

    def fail(dir):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(output.tempfile, "TemporaryFile", fail)
    assert "in '.' nothing can be written (Read-only file system)" in refused(tokprune, FOLDERS["calibrate"], "a/b")
    assert "nothing can be written (Read-only file system)" in refused(tokprune, FILES["env"], "a.json")


def test_places_that_can_be(tokprune):
    Path("link").symlink_to("target")
    Path("target").mkdir()
    for path in ("new", "new/er", "link", "link/a", "target", "./new", str(Path("new").resolve()), ".."):
        assert output.folder_to_write(path) == path
    for path in ("new.json", "file", "link/a.json", "/dev/null", "/dev/stdout", "dangling"):
        assert output.file_to_write(path) == path
    assert not Path("new").exists()


def test_json_goes_where_a_link_leads(tokprune):
    Path("link").symlink_to("file")
    for path, real in (("link", "file"), ("dangling", "nowhere")):
        code, _, errors = tokprune("env", "--json", path)
        assert code == 0, errors
        assert Path(path).is_symlink() and json.loads(Path(real).read_text())["command"] == "env"
    assert tokprune("env", "--json", "/dev/null")[0] == 0
    assert not list(Path().glob(".*.unfinished"))


def full(*arguments, **options):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_no_space_for_a_file(tokprune, monkeypatch):
    Path("old.json").write_text("old")
    monkeypatch.setattr(Path, "write_text", full)
    for path in ("old.json", "new.json"):
        code, _, errors = tokprune("env", "--json", path)
        assert (code, errors) == (1, f"tokprune env: error: cannot write '{path}': No space left on device\n")
    assert Path("old.json").read_text() == "old" and not Path("new.json").exists() and not list(Path().glob(".*.unfinished"))


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("kind", [OSError, RuntimeError])
def test_no_space_for_a_folder(there, kind):
    if there:
        Path("out").mkdir()
        Path("out/old").write_text("old")
    with pytest.raises(OSError, match="^cannot write 'out': No space left on device$"), storing.whole_folder("out") as folder:
        (Path(folder) / "old").write_text("new")
        (Path(folder) / "half").write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device") if kind is OSError else kind("No space left\n on device")
    assert {str(path) for path in Path().rglob("out*/*")} == ({"out/old"} if there else set())
    assert not there or Path("out/old").read_text() == "old"
    assert not list(Path().rglob(".*.unfinished"))


@pytest.mark.parametrize("place", ["out", "deep/out", "link"])
def test_a_folder_is_written_whole(place):
    Path("target/sub").mkdir(parents=True)
    Path("target/sub/kept").write_text("kept")
    Path("link").symlink_to("target")
    with storing.whole_folder(place) as folder:
        assert not Path(place, "sub", "new").exists()
        Path(folder, "sub").mkdir()
        Path(folder, "sub", "new").write_text("new")
    assert Path(place, "sub", "new").read_text() == "new" and not list(Path().rglob(".*.unfinished"))
    assert place != "link" or Path(place, "sub", "kept").read_text() == "kept"


def test_calibrate_writes_all_or_nothing(tokprune, tiny_classifier, text_file, monkeypatch):
    pytest.importorskip("datasets", reason="needs datasets")
    given = ("calibrate", tiny_classifier, "--text", text_file, "--speedup", 1.2, "--output", "out")
    monkeypatch.setattr("tokprune_kernels.cli.companions.copy_companions", full)
    code, out, errors = tokprune(*given)
    assert code == 1 and not out and errors.endswith("cannot write 'out': No space left on device\n") and not Path("out").exists()
