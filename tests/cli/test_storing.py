"""Files and folders that appear whole or not at all: what stays where a writer fails, and what is written over."""

import os

import pytest
from tokprune_kernels.cli.storing import sweep, whole_file, whole_folder, write_text


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_file_that_is_not_written_to_its_end(tmp_path):
    """The old one stays, nothing is left beside it, and whatever the writer raised is one line about the file."""
    write_text(tmp_path / "some.json", "old")
    with pytest.raises(OSError, match="cannot write '.*some.json': half of it and more"):
        with whole_file(tmp_path / "some.json") as beside:
            beside.write_text("ne")
            raise RuntimeError("half of it\nand more")
    assert names(tmp_path) == ["some.json"] and (tmp_path / "some.json").read_text() == "old"
    write_text(tmp_path / "some.json", "new")
    assert names(tmp_path) == ["some.json"] and (tmp_path / "some.json").read_text() == "new"


def test_no_such_folder(tmp_path):
    with pytest.raises(OSError, match="cannot write '.*none/some.json': No such file or directory"):
        write_text(tmp_path / "none" / "some.json", "new")


def test_devices_pipes_and_links_are_written_through(tmp_path):
    """A rename would put a file in the place of the device."""
    write_text("/dev/null", "gone")
    assert not os.path.isfile("/dev/null")
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write_text(tmp_path / "pipe", "said")
    assert os.read(reader, 9) == b"said"
    os.close(reader)
    (tmp_path / "file").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "file").read_text() == "new"


def write_model(folder, weights, **more):
    for name, content in ({"config.json": "of " + weights, weights: weights} | more).items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content)


def test_a_new_folder(tmp_path):
    with pytest.raises(OSError, match="cannot write '.*a/model': no room"):
        with whole_folder(tmp_path / "a" / "model") as folder:
            write_model(folder, "model.safetensors")
            raise ValueError("no room")
    assert not names(tmp_path) and not (tmp_path / "a" / "model").exists()
    with whole_folder(tmp_path / "a" / "model") as folder:
        write_model(folder, "model.safetensors")
        assert not (tmp_path / "a" / "model").exists()
    assert names(tmp_path) == ["a/model/config.json", "a/model/model.safetensors"]


def test_over_a_folder_that_is_there(tmp_path):
    """Its other files stay; weights in other pieces would be read in the place of the new ones."""
    write_model(tmp_path, "model-00001-of-00002.safetensors", **{"notes.txt": "mine", "model.safetensors.index.json": "{}"})
    with pytest.raises(OSError):
        with whole_folder(tmp_path) as folder:
            write_model(folder, "model.safetensors")
            raise ValueError("no room")
    assert (tmp_path / "config.json").read_text() == "of model-00001-of-00002.safetensors"
    with whole_folder(tmp_path) as folder:
        write_model(folder, "model.safetensors", **{"1_Pooling/config.json": "{}"})
        assert (tmp_path / "config.json").read_text() == "of model-00001-of-00002.safetensors", "until all is written"
    assert names(tmp_path) == ["1_Pooling/config.json", "config.json", "model.safetensors", "notes.txt"]
    assert (tmp_path / "config.json").read_text() == "of model.safetensors"


def test_what_a_killed_writer_left(tmp_path):
    """Goes when its place is written again; what a living one writes does not."""
    host, dead = os.uname().nodename, 2**22 + 5  # more than there are numbers for
    for pid in (dead, os.getppid()):
        (tmp_path / f".some.json.{host}-{pid}.unfinished").write_text("half")
    (tmp_path / f".other.json.{host}-{dead}.unfinished").write_text("half")
    write_text(tmp_path / "some.json", "new")
    assert names(tmp_path) == sorted([f".other.json.{host}-{dead}.unfinished", f".some.json.{host}-{os.getppid()}.unfinished", "some.json"])
    sweep(tmp_path)
    assert names(tmp_path) == ["some.json"]
