"""Batches that read a memory map by row."""

from pathlib import Path

import keras
import numpy as np
import pytest

from core.imageio.pixel_cache import forget_array
from core.training import data_loader
from core.training.data_loader import Batches, InOrder, Reader


@pytest.fixture
def views(tmp_path):
    """Two views of seven images on the disk; a value tells view and row."""
    file = tmp_path / "views.npy"
    values = np.arange(2 * 7).reshape(2, 7, 1, 1) + np.zeros((2, 7, 3, 1))
    np.save(file, values.astype("float16"))
    return np.load(file, mmap_mode="r")


def test_a_memory_map_read_by_row_gives_what_a_copy_would_give(views):
    rows = np.array([5, 1, 4, 6, 0])
    y, weight = np.eye(5, dtype="float32"), np.arange(5, dtype="float32")
    by_row = Batches(views, y, weight, 2, seed=3, rows=rows)
    copied = Batches(np.asarray(views)[:, rows], y, weight, 2, seed=3)
    for _ in range(3):
        for index in range(3):
            for a, b in zip(by_row[index], copied[index], strict=True):
                assert np.array_equal(a, b) and a.dtype == b.dtype == np.float32
            x, target, w = by_row[index]
            number = target.argmax(axis=1)
            assert (x[:, 0, 0] % 7 == rows[number]).all() and (w == number).all()
        by_row.on_epoch_end()
        copied.on_epoch_end()


def test_every_view_is_drawn_and_no_image_is_left_out(views):
    y = np.eye(7, dtype="float32")
    data, seen = Batches(views, y, np.ones(7, "float32"), 3, seed=0), set()
    for _ in range(20):
        x = np.concatenate([data[index][0] for index in range(len(data))])
        assert sorted(x[:, 0, 0] % 7) == list(range(7))
        seen |= set(x[:, 0, 0].astype(int))
        data.on_epoch_end()
    assert seen == set(range(14))


@pytest.mark.parametrize("view", [0, 1])
def test_validation_is_in_order_and_whole(views, view):
    rows = np.array([6, 0, 3, 2, 5])
    data = InOrder(views, np.eye(5, dtype="float32"), 2, rows=rows, view=view)
    parts = [data[index] for index in range(len(data))]
    assert [len(x) for x, *_ in parts] == [2, 2, 1]
    assert np.concatenate([x for x, *_ in parts])[:, 0, 0].tolist() == (rows + 7 * view).tolist()
    assert np.array_equal(np.concatenate([y for _, y, _ in parts]), np.eye(5))


def test_keras_asks_for_every_batch_and_gives_the_same_as_arrays_do(views):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((3, 1)), keras.layers.Flatten(), keras.layers.Dense(7)])
    model.compile(loss="mse")
    y = np.eye(7, dtype="float32")
    whole = model.evaluate(np.asarray(views[0], "float32"), y, batch_size=3, verbose=0)
    assert model.evaluate(InOrder(views, y, 3), verbose=0) == pytest.approx(whole, rel=1e-5)


def test_pages_are_let_go_of_and_what_was_written_stays(tmp_path, monkeypatch):
    file = tmp_path / "written.npy"
    written = np.lib.format.open_memmap(file, "w+", np.float32, (1, 4, 5))
    written[:] = np.arange(20).reshape(1, 4, 5)
    forget_array(written)
    forget_array(written[0, None])
    forget_array(np.zeros(3))  # no memory map: nothing happens
    assert np.array_equal(written[0], np.arange(20).reshape(4, 5))
    assert np.array_equal(np.load(file)[0], np.arange(20).reshape(4, 5))
    forgotten = []
    monkeypatch.setattr(data_loader, "forget_array", forgotten.append)
    monkeypatch.setattr(data_loader, "_FORGET_BYTES", 4 * 4 * 5)
    monkeypatch.setattr(data_loader, "_AROUND_BYTES", 0)
    reader = Reader(written)
    for _ in range(6):
        assert reader.read(np.zeros(2, int), np.array([3, 1]))[0, 0] == 15
    assert len(forgotten) == 2  # every third time more than 80 bytes were read


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="asks Linux what is mapped")
def test_small_images_in_any_order_keep_no_more_of_a_large_file_than_is_said(tmp_path, monkeypatch):
    """The kernel maps the neighbours of what is read, so counting what is read is not enough."""
    file, size, n = tmp_path / "pixels.u8", 32, 32_768
    np.lib.format.open_memmap(file, "w+", np.uint8, (n, size, size))[:] = 7  # 32 MiB
    pixels = np.load(file, mmap_mode="r")
    monkeypatch.setattr(data_loader, "_FORGET_BYTES", 16 * 2**20)
    reader, mapped = Reader(pixels[None]), []
    order = np.random.default_rng(0).permutation(n)
    for chosen in order[:2048].reshape(-1, 16):
        reader.read(np.zeros(16, int), chosen)
        mapped.append(_mapped_bytes(file))
    assert 0 < max(mapped) <= 16 * 2**20


def _mapped_bytes(file: Path) -> int:
    """How much of a file this process has in its memory."""
    lines = iter(Path("/proc/self/smaps").read_text().splitlines())
    return sum(
        1024 * int(next(line for line in lines if line.startswith("Rss:")).split()[1])
        for head in lines
        if head.endswith(str(file))
    )
