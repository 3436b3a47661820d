"""The fuzzer itself: some hundred inputs of every format, and that it sees what is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from core.bench import fuzz
from core.bench.fuzz import FuzzResult, mutate, rebuild, run_fuzz
from core.bench.fuzz_seeds import build_seeds, encode, make_dicom
from core.imageio import sandbox
from core.imageio.decode import Decoded, ImageError, decode_image
from core.imageio.sandbox import close_sandbox
from core.imageio.zip_archive import read_zip

FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "ZIP", "DICOM of pydicom")


def test_every_seed_is_read():
    seeds = build_seeds()
    assert set(FORMATS) < set(seeds) and len([n for n in seeds if n.startswith("DICOM")]) == 9
    for name, files in seeds.items():
        assert files, name
        for data in files:
            if name == "ZIP":
                assert any(entry.data for entry in read_zip(data))
            elif name != "DICOM of pydicom":
                assert decode_image(data).width == 48, name


def test_real_pictures_are_among_the_seeds_where_there_are_some(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (90, 80), dtype=np.uint8)
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.png").write_bytes(encode(picture, "PNG"))
    (tmp_path / "set" / "b.png").write_bytes(b"damaged")
    assert len(build_seeds(tmp_path)["BMP"]) == len(build_seeds()["BMP"]) + 1


def test_hundreds_of_inputs_of_every_format():
    told: list[tuple[int, int]] = []
    result = run_fuzz(
        600, seed=int(os.environ.get("FUZZ_SEED", "0")), progress=lambda *n: told.append(n)
    )
    assert result.wrong == [] and result.crashed == []
    assert result.tried == 600 == result.accepted + result.refused
    assert sum(result.by_format.values()) == 600
    assert set(result.by_format) == set(build_seeds())
    assert min(result.by_format.values()) >= 40
    assert result.accepted > 50 and result.refused > 200
    assert told[-1] == (600, 600)


def test_the_same_seed_gives_the_same_inputs():
    one, two = (run_fuzz(80, 5, ["BMP"]) for _ in range(2))
    assert one.outcomes == two.outcomes and one.tried == 80


def test_unknown_formats():
    with pytest.raises(ValueError, match=r"Received: \['GIF'\]"):
        run_fuzz(1, 0, ["GIF"])


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (("flip", 0.5, 0, 0), b"\x01bcdefgh"),
        (("set", 0.5, 65, 0), b"Abcdefgh"),
        (("edge", 0.5, 4, 1), b"\xff\0cdefgh"),
        (("cut", 0.75, 0, 0), b"abcd"),
        (("delete", 0.5, 1, 0), b"cdefgh"),
        (("repeat", 0.5, 1, 1), b"ababababcdefgh"[2:]),
        (("insert", 0.5, 0, 90), b"Zabcdefgh"),
    ],
)
def test_steps(step, expected):
    data = b"\0bcdefgh" if step[0] == "flip" else b"abcdefgh"
    assert mutate([data], 0, [step]) == expected


def test_pngs_get_right_checksums():
    data = encode(np.zeros((40, 40), np.uint8), "PNG")
    place = 0.5 * 20 / min(len(data), 700)  # inside the header chunk: the width
    wide = mutate([data], 0, [("set", place, 1, 0)], True)
    with pytest.raises(ImageError) as caught:
        decode_image(wide)
    assert "CRC" not in str(caught.value) and "checksum" not in str(caught.value)


@pytest.fixture
def faulty(monkeypatch):
    """Gives the sandbox's workers a decode_image with a fault."""
    monkeypatch.delenv("CXR_DATA", raising=False)
    start = subprocess.Popen

    def build_in(fault: str) -> None:
        code = (
            "import os, sys, core.imageio.decode as decode\n"
            "from dataclasses import replace\n"
            "from core.imageio.sandbox_worker import main\n"
            "right = decode.decode_image\n"
            "def wrong(data):\n"
            f"    {fault}\n"
            "    return right(data)\n"
            "decode.decode_image = wrong\n"
            "main(int(sys.argv[1]), float(sys.argv[2]))\n"
        )

        def patched(command, **options):
            return start([sys.executable, "-c", code, *command[-2:]], **options)

        close_sandbox()
        monkeypatch.setattr(sandbox.subprocess, "Popen", patched)

    yield build_in
    close_sandbox()


def test_other_exceptions_are_counted_and_can_be_made_again(faulty):
    faulty("if len(data) % 5 == 0: raise KeyError('fault')")
    result = run_fuzz(40, 1, ["BMP"])
    assert result.tried == 40 and 0 < len(result.wrong) < 40 and not result.crashed
    assert "KeyError: 'fault'" in result.wrong[0]
    recipe = json.loads(result.wrong[0][result.wrong[0].index("{") :])
    assert len(rebuild(recipe)) % 5 == 0


def test_crashes_are_counted_and_the_rest_is_tried(faulty):
    faulty("if len(data) % 16 == 0: os.abort()")
    result = run_fuzz(40, 1, ["BMP"])
    assert result.tried == 40 and 0 < len(result.crashed) < 40 and not result.wrong
    assert "process ended by -6" in result.crashed[0]
    recipe = json.loads(result.crashed[0][result.crashed[0].index("{") :])
    assert len(rebuild(recipe)) % 16 == 0


def test_inputs_that_take_too_long_are_crashes(monkeypatch):
    def time_out(_data):
        raise TimeoutError

    monkeypatch.setattr(fuzz, "decode_in_worker", time_out)  # tests/imageio/test_sandbox.py has it
    result = run_fuzz(5, 1, ["BMP"])
    assert result.tried == 5 == len(result.crashed) and "no reply in 20 s" in result.crashed[0]


def test_images_that_are_none_are_wrong(faulty):
    faulty("decoded = right(data); return replace(decoded, pixels=decoded.pixels.astype('int16'))")
    result = run_fuzz(6, 1, ["BMP"])
    assert result.tried == 6 and result.wrong and not result.crashed and not result.accepted
    assert "an image of int16" in result.wrong[0]


def test_broken_contracts_are_wrong():
    grey = np.zeros((40, 40), np.uint8)
    fine = Decoded(grey, 40, 40, "PNG", "L")
    assert fuzz._judge_image(fine) == ("accepted", "")
    for bad in (
        Decoded(grey, 41, 40, "PNG", "L"),
        Decoded(grey.astype(np.int16), 40, 40, "PNG", "L"),
        Decoded(grey[:9, :9], 9, 9, "PNG", "L"),
        Decoded(grey, 40, 40, "PNG", "L", colourfulness=2.0),
        Decoded(grey, 40, 40, "DICOM", "L", facts={"Modality": "Zzyzx^Quentin"}),
        Decoded(grey, 40, 40, "DICOM", "L", facts={"Modality": "a\nb"}),
    ):
        assert fuzz._judge_image(bad)[0] == "wrong"
    assert fuzz._judge_sentence("The picture is damaged; fetch it again.")[0] == "refused"
    for bad in ("no full stop, which a sentence has", "Two lines,\none sentence too many.", "x."):
        assert fuzz._judge_sentence(bad)[0] == "wrong"
    assert FuzzResult().tried == 0


def test_identifiers_are_in_every_dicom_seed():
    assert b"Zzyzx^Quentin" in make_dicom(np.zeros((40, 40), np.uint8))
