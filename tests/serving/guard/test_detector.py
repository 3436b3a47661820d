"""The guard: its numbers against other sources, what it says, and files that are not as written."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.covariance import EmpiricalCovariance

from core.files import sha256_file
from core.imageio.decode import Decoded, read_image, resize_square
from core.inference.served_model import load_model
from core.runs import additions, artifacts
from core.runs.additions import load_guard_files
from core.runs.artifacts import ArtifactError
from core.serving.guard import detector, fit
from core.serving.guard.detector import CELLS, VARIANTS, Space, load_guard
from core.serving.guard.fit import set_bounds
from core.serving.guard.messages import GuardMeasurement, explain_facts
from core.serving.guard.negatives import as_decoded
from tests.support.guard import add_guard
from tests.support.runs import make_run


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of X-rays (drawn ones) with a guard fitted on them; read it, never write to it."""
    root = tmp_path_factory.mktemp("guarded")
    path = make_run(root / "artifacts", tiny_openvino=True, modality="xray")
    add_guard(path)
    return path


@pytest.fixture(scope="module")
def judging(whole: Path):
    """judge(decoded) -> Judgement, and how often the model was asked why."""
    run = artifacts.open_run(whole)
    made, model = load_guard(run), load_model(run, "mobilenetv2")
    asked = []

    def ask(pixels: np.ndarray) -> np.ndarray:
        asked.append(len(pixels))
        return model.predict(pixels).features

    def judge(decoded: Decoded):
        square = resize_square(decoded.pixels, model.input_size_px)
        return made.check(model.predict(square[None]).features[0], decoded, ask)

    return judge, asked


@pytest.fixture(scope="module")
def xray(whole: Path) -> np.ndarray:
    """A test image of the run, as pixels that do not say that they are drawn."""
    manifest = artifacts.load_manifest(artifacts.open_run(whole))
    path = manifest.loc[manifest["split"] == "test", "path"].iloc[0]
    return read_image(whole.parent.parent / "data" / "phantom" / path).pixels


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A run with a guard to write to; without images or models."""
    path = make_run(tmp_path / "artifacts", n=60, images=False)
    add_guard(path)
    return path


# ------------------------------------------------------------------------------ numbers


def test_distance_is_worked_by_hand() -> None:
    space = Space(np.array([1.0, 1.0]), np.eye(2), np.array([4.0, 1.0]))
    # Deviations (2, 0) and (2, 2): squares over variance 1 + 0 and 1 + 4, mean over directions.
    found = space.mahalanobis(np.array([[3.0, 1.0], [3.0, 3.0]]))
    assert found == pytest.approx([np.sqrt(0.5), np.sqrt(2.5)])


def test_all_directions_unshrunk_are_the_mahalanobis_distance_of_scikit_learn(monkeypatch) -> None:
    monkeypatch.setattr(fit, "SHRINKAGE", 0.0)
    rng = np.random.default_rng(0)
    train = rng.normal(size=(50, 4)) @ rng.normal(size=(4, 4))
    asked = rng.normal(size=(7, 4)) * 3
    wanted = EmpiricalCovariance().fit(train).mahalanobis(asked)
    assert fit.fit_space(train, 4).mahalanobis(asked) ** 2 * 4 == pytest.approx(wanted)


def test_features_that_never_change_divide_by_nothing() -> None:
    space = fit.fit_space(np.ones((30, 5)), 3)
    assert np.isfinite(space.mahalanobis(np.zeros((1, 5)))).all()


def test_variants_are_what_their_words_say() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 6), dtype=np.uint8)
    picture = Image.fromarray(pixels)
    made = dict(zip(VARIANTS, detector.vary(pixels[None])[0], strict=True))
    for words, degrees in (
        ("turned by 90 degrees counterclockwise", 90),  # as Pillow turns
        ("turned by 180 degrees", 180),
        ("turned by 90 degrees clockwise", -90),
    ):
        assert np.array_equal(made[words], np.asarray(picture.rotate(degrees, expand=True)))
    assert np.array_equal(made["as a negative"], 255 - pixels)


def test_layouts_of_variants_are_those_of_the_varied_pictures() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (96, 96), dtype=np.uint8)
    read = np.stack([detector.read_layout(one) for one in detector.vary(pixels[None])[0]])
    # Pillow rounds to whole greys, so half a grey may be between them.
    assert read == pytest.approx(detector.vary(detector.read_layout(pixels)[None])[0], abs=0.6)


def test_a_layout_is_the_mean_of_its_cells_and_brightness_and_contrast_do_not_matter() -> None:
    cells = np.random.default_rng(2).integers(20, 120, (CELLS, CELLS)).astype(np.uint8)
    picture = np.kron(cells, np.ones((32, 32), np.uint8))
    found = detector.read_layout(picture)
    # Pillow's antialiasing mixes in a little of the cells beside it, which differ by up to 100.
    assert np.abs(found - cells).max() < 12
    brighter = detector.even_out(detector.read_layout(2 * picture + 10)[None])
    assert brighter == pytest.approx(detector.even_out(found[None]), abs=0.05)
    blank = detector.even_out(np.full((1, CELLS, CELLS), 90.0))
    assert np.array_equal(blank, np.zeros((1, CELLS**2)))


def test_a_picture_and_its_mirror_image_are_as_far() -> None:
    rng = np.random.default_rng(3)
    space = fit.fit_layouts(rng.uniform(0, 255, (90, CELLS, CELLS)) + np.arange(CELLS) * 20)
    asked = rng.uniform(0, 255, (5, CELLS, CELLS))
    own, mirrored = (detector.measure_layouts(space, a)[0] for a in (asked, asked[:, :, ::-1]))
    assert own == pytest.approx(mirrored)


def test_chords() -> None:
    found = detector.chords(np.array([[2.0, 0.0]]), np.array([[5.0, 0], [0, 1], [-3, 0]]))
    assert found[0] == pytest.approx([0, np.sqrt(2), 2])


def test_smoothness_and_blankness() -> None:
    y, x = np.mgrid[0:300, 0:300]
    slope = (x * 255 / 299).astype(np.uint8)
    assert detector.smoothness(slope) > 0.95
    assert detector.smoothness(((x + y) % 2 * 255).astype(np.uint8)) == pytest.approx(-1, abs=0.02)
    assert detector.smoothness(np.full((300, 300), 7, np.uint8)) == 1.0
    stripes = np.random.default_rng(0).integers(0, 256, (300, 1)) + 0 * x
    assert detector.smoothness(stripes.astype(np.uint8)) < 0.2  # alike across, not down

    def blank(pixels: np.ndarray) -> bool:
        return detector.measure_image(as_decoded(pixels), 0, 0, 0, ()).blank

    assert blank(np.full((64, 64), 200, np.uint8)) and not blank(slope)
    assert blank((x[:64, :64] % 16).astype(np.uint8))  # 16 levels: 0 to 15
    assert not blank((x[:64, :64] % 17).astype(np.uint8))


def test_bounds_keep_the_level_of_held_out_images_and_not_one_more() -> None:
    n = 199  # ceil(200 * 0.99) = 198 must be kept, so one image may be lost
    measured = np.zeros((n, 3))
    measured[:, 0] = measured[:, 1] = np.arange(n)
    bounds, how = set_bounds(measured, np.zeros(n, bool), 0.99)
    assert bounds == {"features": 197.0, "layout": 197.0} and how["rank"] == 198
    assert how["kept_out_of_fold"] == pytest.approx(198 / 199)
    # Of 100 images ceil(101 * 0.99), that is all, must be kept.
    few, _ = set_bounds(measured[:100].copy(), np.zeros(100, bool), 0.99)
    assert few == {"features": 99.0, "layout": 99.0}
    # Another image that only its layout betrays: both bounds go up, or one too few is kept.
    measured[0, 1] = 1000
    assert set_bounds(measured, np.zeros(n, bool), 0.99)[0]["features"] == 198.0
    # One that is turned in the data already: nothing is left to lose.
    measured[0] = (0, 0, 2)
    bounds, how = set_bounds(measured, np.zeros(n, bool), 0.99)
    assert bounds["features"] == 198.0 and how["turned_n"] == 1


def test_bounds_are_widened_where_the_network_knows_the_training_images() -> None:
    measured = np.concatenate([np.full((90, 3), 0.5), np.full((10, 3), 0.6)])
    is_train = np.arange(100) < 90
    bounds, how = set_bounds(measured, is_train)
    assert how["widened"] == pytest.approx(1.2) and bounds["features"] == pytest.approx(0.72)
    assert bounds["layout"] == pytest.approx(0.6)  # no network looks at it
    measured[90:] = 0.4
    assert set_bounds(measured, is_train)[1]["widened"] == 1.0  # never narrowed


# ------------------------------------------------------------------------------ judging


def test_what_looks_right_passes_and_the_model_is_not_asked_why(judging, xray) -> None:
    judge, asked = judging
    asked.clear()
    found = judge(as_decoded(xray))
    assert found.looks_right and found.reasons == () and 0 < found.distance <= 1
    assert found.sentence == (
        f"It looks like a frontal chest X-ray (distance {found.distance:.2f} of the 1.0 that "
        "99\u202f% of real ones keep)."
    )
    assert asked == [] and found.threshold == 1.0 and not found.synthetic
    mirrored = judge(as_decoded(xray[:, ::-1]))
    assert mirrored.looks_right, "hung the wrong way round it is still one"


@pytest.mark.parametrize(
    ("quarters", "words"),
    [
        (1, "turned by 90 degrees clockwise it looks like one; turn it"),
        (2, "turned by 180 degrees it looks like one; turn it"),
        (3, "turned by 90 degrees counterclockwise it looks like one; turn it"),
    ],
)
def test_turned_pictures_are_refused_with_how_to_turn_them(judging, xray, quarters, words) -> None:
    found = judging[0](as_decoded(np.rot90(xray, quarters)))
    assert not found.looks_right and words in found.reasons


def test_negatives_are_refused_with_what_to_do(judging, xray) -> None:
    found = judging[0](as_decoded(255 - xray))
    assert not found.looks_right
    assert "as a negative it looks like one; invert it" in found.sentence


def test_blank_noise_and_colour_say_so_without_asking(judging) -> None:
    judge, asked = judging
    asked.clear()
    rng = np.random.default_rng(0)
    blank = judge(as_decoded(np.full((200, 200), 128, np.uint8)))
    assert blank.reasons == ("it has almost one grey level only",)
    noise = judge(as_decoded(rng.integers(0, 256, (200, 200), dtype=np.uint8)))
    faint = judge(as_decoded(rng.integers(98, 103, (200, 200), dtype=np.uint8)))
    assert faint.reasons == blank.reasons
    assert noise.reasons == ("it is noise: pixels side by side have little in common",)
    y, x = np.mgrid[0:200, 0:200]
    colour = np.stack([x, y, 200 - x], axis=-1).astype(np.uint8)
    assert judge(as_decoded(colour)).sentence == (
        "This does not look like a frontal chest X-ray: it is a colour picture."
    )
    assert asked == []


def test_a_faint_tint_is_no_colour_picture(judging, xray) -> None:
    tinted = np.stack([xray, xray, (xray * 0.9).astype(np.uint8)], axis=-1)
    assert judging[0](as_decoded(tinted)).looks_right


def test_a_header_decides_whatever_the_pixels(judging, xray) -> None:
    decoded = replace(as_decoded(xray), facts={"Modality": "CT"})
    found = judging[0](decoded)
    assert not found.looks_right and found.distance <= 1
    assert found.reasons == (
        "its header says computed tomography (Modality CT), which is not an X-ray",
    )
    lateral = judging[0](replace(decoded, facts={"Modality": "DX", "ViewPosition": "LL"}))
    assert "its header says a lateral view, which is not frontal" in lateral.sentence


@pytest.mark.parametrize(
    ("facts", "word"),
    [
        ({"Modality": "DX", "ViewPosition": "PA", "BodyPartExamined": "CHEST"}, ""),
        ({"Modality": "CR", "ViewPosition": "AP"}, ""),
        ({"Modality": "OT"}, ""),
        ({"ViewPosition": "LLD"}, ""),  # lying on the side, and yet a frontal view
        ({"ViewPosition": "LEFT LATERAL DECUBITUS"}, ""),
        ({"BodyPartExamined": "CHEST SPINE"}, ""),
        ({"BodyPartExamined": "PORTABLE"}, ""),
        ({"Modality": " mr "}, "magnetic resonance"),
        ({"Modality": "US"}, "ultrasound"),
        ({"ViewPosition": "RL"}, "lateral"),
        ({"ViewPosition": "LATERAL"}, "lateral"),
        ({"ViewPosition": "LEFT LATERAL"}, "lateral"),
        ({"ViewPosition": "RLO"}, "oblique"),
        ({"BodyPartExamined": "Hand"}, "HAND"),
        ({"BodyPartExamined": "JOHN DOE HAND"}, "(HAND)"),
    ],
)
def test_headers(facts: dict, word: str) -> None:
    decoded = replace(as_decoded(np.zeros((64, 64), np.uint8)), facts=facts)
    reasons = explain_facts(decoded, "xray")
    assert len(reasons) == bool(word) and word in "".join(reasons)
    assert "DOE" not in "".join(reasons)


def test_a_ct_run_wants_ct() -> None:
    picture = as_decoded(np.zeros((64, 64), np.uint8))
    assert (
        explain_facts(replace(picture, facts={"Modality": "CT", "ViewPosition": "L"}), "ct") == ()
    )
    (reason,) = explain_facts(replace(picture, facts={"Modality": "DX"}), "ct")
    assert reason == "its header says an X-ray (Modality DX), which is not a CT slice"


def test_a_drawn_picture_passes_visibly_whatever_it_shows(judging, xray) -> None:
    judge, _ = judging
    found = judge(replace(as_decoded(xray), synthetic=True))
    assert found.looks_right and found.synthetic
    assert found.sentence.startswith("SYNTHETIC: a drawn phantom, let through as such; ")
    blank = judge(replace(as_decoded(np.zeros((99, 99), np.uint8)), synthetic=True))
    assert blank.looks_right and "does not pass as a frontal chest X-ray" in blank.sentence


def test_far_pictures_say_how_far() -> None:
    far = GuardMeasurement(features=3.24, layout=9.0, turned=0.5)
    (reason,) = far.reasons("", VARIANTS[0])
    assert reason == "its features lie 3.2 times as far from the training images as the bound"
    (reason,) = GuardMeasurement(0.5, 2.0, 0.5).reasons("", VARIANTS[0])
    assert "light and dark areas lie elsewhere: they are 2.0 times as far" in reason
    (reason,) = GuardMeasurement(0.5, 0.5, 1.2).reasons("", VARIANTS[1])
    assert "turned by 180 degrees than as it is" in reason
    assert GuardMeasurement(1.0, 1.0, 1.0).passes and not GuardMeasurement(1.01, 0, 0).passes
    assert "over 100 times" in GuardMeasurement(1e9, 0, 0).reasons("", VARIANTS[0])[0]


def test_the_nearest_are_of_the_training_part_and_a_training_image_finds_itself(whole) -> None:
    run = artifacts.open_run(whole)
    made, model = load_guard(run), load_model(run, "mobilenetv2")
    manifest = artifacts.load_manifest(run)
    train = manifest[manifest["split"] == "train"]
    assert set(made.image_ids) == set(train["image_id"])
    row = train.iloc[3]
    pixels = read_image(whole.parent.parent / "data" / "phantom" / row["path"]).pixels
    features = model.predict(resize_square(pixels, model.input_size_px)[None]).features[0]
    near = made.nearest(features, 5)
    assert len(near) == 5 and near[0].image_id == row["image_id"]
    assert (near[0].label, near[0].patient_id) == (row["label"], row["patient_id"])
    assert near[0].distance == pytest.approx(0, abs=1e-3)
    assert [n.distance for n in near] == sorted(n.distance for n in near)
    assert float(made.distance(features[None])[0]) < 1


# ------------------------------------------------------------------------------ files


def rewrite(run_dir: Path, change) -> None:
    file = run_dir / "guard" / "guard.json"
    document = json.loads(file.read_text(encoding="utf-8"))
    change(document)
    file.write_text(json.dumps(document), encoding="utf-8")


def repack(run_dir: Path, change) -> None:
    """Other arrays, under a hash that fits them."""
    file = run_dir / "guard" / "guard.npz"
    with np.load(file) as packed:
        arrays = {name: packed[name] for name in packed.files}
    change(arrays)
    out = io.BytesIO()
    np.savez_compressed(out, **arrays)
    file.write_bytes(out.getvalue())
    rewrite(run_dir, lambda d: d["files"].update({"guard.npz": sha256_file(file)}))


def test_a_run_without_guard_has_none(tmp_path: Path) -> None:
    run = artifacts.open_run(make_run(tmp_path / "runs", n=30, images=False))
    assert load_guard(run) is None and load_guard_files(run) is None


def test_a_guard_changes_nothing_of_the_run(tmp_path: Path) -> None:
    path = make_run(tmp_path / "runs", n=60, images=False)
    before = sha256_file(path / "run.json")
    add_guard(path)
    run = artifacts.open_run(path)
    assert sha256_file(path / "run.json") == before
    assert artifacts.verify_run(path) == [] and additions.verify_additions(run) == []
    assert load_guard(run).threshold == 1.0
    (path / "guard" / "guard.npz").write_bytes(b"x")
    assert additions.verify_additions(run) == ["guard/guard.npz has changed since it was written."]


def test_damaged_files_are_one_sentence(own: Path) -> None:
    run, file = artifacts.open_run(own), own / "guard" / "guard.npz"
    whole = file.read_bytes()
    file.write_bytes(whole[:-100])
    with pytest.raises(ArtifactError, match=r"differs from the hash in guard\.json\. Restore the"):
        load_guard(run)
    rewrite(own, lambda d: d["files"].update({"guard.npz": sha256_file(file)}))
    with pytest.raises(ArtifactError, match=r"no archive of arrays.*core guard --run demo"):
        load_guard(run)
    file.unlink()
    with pytest.raises(ArtifactError, match=r"guard\.npz is damaged: the file is missing"):
        load_guard(run)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda a: a.pop("layout_mean"), "layout_mean"),
        (lambda a: a.update(features_variances=a["features_variances"] * 0), "cannot be"),
        (lambda a: a.update(features_mean=a["features_mean"] * np.nan), "cannot be"),
        (lambda a: a.update(features_mean=np.zeros(3)), "different sizes"),
        (lambda a: a.update(train_label=a["train_label"][1:]), "not all named"),
        (lambda a: a.update(train_projected=np.zeros((0, 6))), "another size"),
        (lambda a: a.update(layout_directions=np.zeros(5)), "do not fit"),
    ],
)
def test_arrays_that_do_not_fit_are_one_sentence(own: Path, change, says: str) -> None:
    repack(own, change)
    with pytest.raises(ArtifactError, match=says):
        load_guard(artifacts.open_run(own))


def test_pickled_arrays_are_never_read(own: Path) -> None:
    class Loud:
        def __reduce__(self):
            return print, ("run from a file",)

    repack(own, lambda a: a.update(train_label=np.array([Loud()], dtype=object)))
    with pytest.raises(ArtifactError, match="no archive of arrays"):
        load_guard(artifacts.open_run(own))


def test_a_document_of_another_shape_is_one_sentence(own: Path) -> None:
    rewrite(own, lambda d: d.update(bounds={"features": "far"}))
    with pytest.raises(ArtifactError, match="`bounds"):
        load_guard(artifacts.open_run(own))


def test_a_guard_of_another_model_file_is_not_used(tmp_path: Path) -> None:
    path = make_run(tmp_path / "artifacts", n=60, tiny_openvino=True)
    add_guard(path)
    assert load_guard(artifacts.open_run(path)) is not None
    rewrite(path, lambda d: d["model_files"].update({"mobilenetv2/model.bin": "00"}))
    with pytest.raises(ArtifactError, match=r"fitted on another mobilenetv2/model\.bin"):
        load_guard(artifacts.open_run(path))
