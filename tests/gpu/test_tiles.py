"""Tiles other than the shipped ones: in a file, and how the fastest are found."""

import json
import os
import subprocess
import sys

import pytest
import torch

from .conftest import ROOT

pytest.importorskip("triton", reason="needs triton")

from tokprune_kernels._gpu import TILES_VARIABLE  # noqa: E402
from tokprune_kernels.gpu import configs, tune  # noqa: E402
from tokprune_kernels.gpu.tiles import LinearTile, Tile, read_tiles, tuned_file, write_tiles  # noqa: E402

SHIPPED = configs.TILES | configs.LINEAR_TILES
LONG, LINEAR = ("attend_long", configs.HALF, 64), (configs.LINEAR, configs.HALF, 0)


def test_a_file_is_read_as_it_was_written(tmp_path):
    table = {LONG: Tile(64, 32, 8, 2), LINEAR: LinearTile(64, 256, 32, 4, 8, 3, 2)}
    write_tiles(tmp_path / "new folder" / "tiles.json", table, {"gpu": "none"})
    assert read_tiles(tmp_path / "new folder" / "tiles.json", SHIPPED) == table


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kernel": "attend"}, "no kernel takes a tile"),
        ({"head": 48}, "no kernel takes a tile"),
        ({"block_m": 48}, "block_m 48: it must be a power of two from 16 to 512"),
        ({"block_n": 8}, "block_n 8: it must be a power of two from 16 to 512"),
        ({"block_n": 1024}, "block_n 1024: it must be a power of two from 16 to 512"),
        ({"num_warps": 64}, "num_warps 64: it must be a power of two from 1 to 32"),
        ({"num_stages": 10**9}, "num_stages 1000000000: it must be from 1 to 16"),
        ({"num_warps": "4"}, "num_warps '4'"),
        ({"num_stages": 0}, "num_stages 0"),
        ({"kernel": "attend_short_128", "block_n": 64}, "both are its longest text, 128"),
    ],
)
def test_rows_that_no_kernel_can_take(tmp_path, change, said):
    write_tiles(tmp_path / "tiles.json", {LONG: Tile(64, 32, 8, 2)}, {})
    table = json.loads((tmp_path / "tiles.json").read_text())
    table["tiles"][0] |= change
    (tmp_path / "tiles.json").write_text(json.dumps(table))
    with pytest.raises(ValueError, match=said) as caught:
        read_tiles(tmp_path / "tiles.json", SHIPPED)
    assert "tiles.json" in str(caught.value)


@pytest.mark.parametrize("text", [None, "{", "[]", "[" * 100_000, '{"tiles": [3]}', '{"tiles": [{"kernel": "attend_long"}]}'])
def test_files_that_are_no_tables(tmp_path, text):
    if text is not None:
        (tmp_path / "tiles.json").write_text(text)
    with pytest.raises(ValueError, match="is not a table of GPU tiles .* or be unset"):
        read_tiles(tmp_path / "tiles.json", SHIPPED)


def test_the_variable_names_the_file(tmp_path):
    """Read once, in place of the shipped rows; those that the file has not stay."""
    write_tiles(tmp_path / "tiles.json", {LONG: Tile(64, 32, 8, 2), LINEAR: LinearTile(64, 256, 32, 4, 8, 3, 2)}, {})
    code = (
        "import torch; from tokprune_kernels.gpu.configs import linear_tile, tile;"
        "print(tile('attend_long', torch.float16, 64), linear_tile(torch.float16, 4096, 4096, 100), tile('grad_keys', torch.float16, 64))"
    )
    command = [sys.executable, "-W", "ignore", "-c", code]
    environment = {**os.environ, TILES_VARIABLE: str(tmp_path / "tiles.json")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    expected = f"{Tile(64, 32, 8, 2)} {LinearTile(64, 256, 32, 4, 8, 3, 2)} {configs.tile('grad_keys', torch.float16, 64)}"
    assert done.stdout.strip() == expected


def test_products_take_the_largest_tile_that_keeps_the_gpu_busy():
    """On a GPU of 132 multiprocessors: one tile each, then a tile for half of them, then the smallest."""
    sizes = {(65536, 768): 0, (1024, 2304): 0, (1024, 768): 1, (128, 3072): 1, (128, 768): 2, (1, 768): 2}
    for (rows, columns), number in sizes.items():
        assert configs.linear_key(torch.float16, rows, columns, 132) == (configs.LINEAR, configs.HALF, number)
    assert configs.linear_key(torch.float32, 1, 768, 132) == (configs.LINEAR, configs.FULL, 0)


def test_the_cache_is_where_the_system_has_caches(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert tuned_file(90) == tmp_path / "tokprune_kernels" / "gpu_tiles_sm90.json"


def test_other_tiles_give_the_same_results():
    """Every kernel that is tuned, in the interpreter: the last tile tried, which the clock finds fastest, is taken."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.gpu.interpret_tune"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row[0] for row in rows] == ["attend_short_64", "attend_long", "column_sums", "grad_queries", "grad_keys", "linear_rows"]
    for kernel, last, best, told in rows:
        assert best == last, (kernel, told)


def trial_of(*candidates, results=lambda tile: 1.0):
    def run():
        return (torch.tensor([results(configs.OVERRIDES[LONG])]),)

    return tune.Trial(LONG, Tile(128, 64, 4, 3), candidates, run)


def test_the_fastest_is_taken_if_it_is_worth_it():
    times = {128: 1.0, 64: 0.98, 32: 0.9, 16: 0.95}
    candidates = [Tile(rows, 64, 4, 3) for rows in (64, 32, 16)]

    def milliseconds(run):
        return times[configs.OVERRIDES[LONG].block_m]

    assert tune.fastest(trial_of(*candidates), milliseconds, str) == candidates[1]
    assert tune.fastest(trial_of(candidates[0]), milliseconds, str) == Tile(128, 64, 4, 3)
    assert LONG not in configs.OVERRIDES


def test_wrong_results_and_lack_of_room_are_passed_over():
    told = []

    def results(tile):
        if tile.block_m == 64:
            raise tune.OutOfResources(200, 100, "shared memory")
        return 2.0 if tile.block_m == 32 else float("nan") if tile.block_m == 16 else 1.0

    candidates = [Tile(rows, 64, 4, 3) for rows in (64, 32, 16)]
    clock = iter((1.0, 0.1, 0.1, 0.1))
    assert tune.fastest(trial_of(*candidates, results=results), lambda run: next(clock), told.append) == Tile(128, 64, 4, 3)
    assert sum("other results" in line for line in told) == 2


def test_tuning_says_what_it_needs(capsys):
    for arguments, said in ((("--lengths", "512", "128"), "in order"), (("--head", "0"), "at least 1")):
        with pytest.raises(SystemExit):
            tune.main(list(arguments))
        assert said in capsys.readouterr().err
    if not torch.cuda.is_available():
        with pytest.raises(SystemExit):
            tune.main([])
        assert "needs a CUDA GPU" in capsys.readouterr().err
