"""One picture on every model: what they say, whether they agree, and how much that is worth."""

from __future__ import annotations

import io
from dataclasses import dataclass

import streamlit as st
from PIL import Image

from core.artifacts import ArtifactError
from core.images import MAX_BYTES, ImageError, decode_image, read_bytes
from core.phantom import class_names as PHANTOM_CLASSES
from core.phantom import make_phantom
from dashboard import gallery, live, loaders, ui
from dashboard.charts import MODEL_STYLES, model_style
from dashboard.charts_answers import plot_probabilities
from dashboard.predicting import (
    MeanAnswer,
    ModelAnswer,
    PictureAnswer,
    agreement_sentence,
    mean_answer,
    worth,
)

PICTURE, UPLOADER, TEST_IMAGE = "predict_picture", "predict_upload", "predict_test_image"
FORMATS_TEXT = "PNG, JPEG, TIFF, BMP or WebP"
SOURCES = {"upload": "Upload", "phantom": "Drawn phantom", "test": "Test image"}
PHANTOM_PX = 384
CARD_WIDTH_PX = 280
MEAN_STYLE = MODEL_STYLES["ensemble"]


@dataclass(frozen=True)
class Picture:
    """The picture on the page; data is the file's bytes, label its true class where known."""

    name: str
    data: bytes
    synthetic: bool
    label: str | None = None


def put(picture: Picture | None) -> None:
    """The picture outlives the uploader, which forgets its file when its page is left."""
    st.session_state[PICTURE] = picture


def take_upload() -> None:
    file = st.session_state[UPLOADER]
    if file is not None:
        forget_test_image()
        data = file.getvalue()
        put(Picture(file.name, data, is_drawn(data)))


def is_drawn(data: bytes) -> bool:
    """Whether the file says that it is a drawn phantom."""
    try:
        return decode_image(data).synthetic
    except ImageError:
        return False  # said where the models are asked about it


def forget_test_image() -> None:
    """With another picture on the page, choosing the same test image again must be a change."""
    st.session_state[TEST_IMAGE] = None


def clear() -> None:
    forget_test_image()
    put(None)


def draw_phantom(label: str, seed: int) -> None:
    forget_test_image()
    pixels = make_phantom(label, seed, PHANTOM_PX, patient=seed).pixels
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    put(Picture(f"phantom-{label}-{seed}.png", buffer.getvalue(), True, label))
    st.session_state["predict_seed"] = seed + 1


def take_test_image(pictures: loaders.Pictures, labels: dict[str, str], synthetic: bool) -> None:
    image_id = st.session_state.get(TEST_IMAGE)
    path = pictures.find(image_id) if image_id else None
    if path is None:
        return
    try:
        data = read_bytes(path)
    except ImageError as error:
        st.session_state["predict_problem"] = f"{path.name}: {error}"
        return
    put(Picture(path.name, data, synthetic or is_drawn(data), labels[image_id]))


def choose_picture(selection: ui.Selection) -> None:
    """Upload, phantom or test image; each puts its picture into the session."""
    source = st.segmented_control(
        "Picture from",
        list(SOURCES),
        default="upload",
        key="predict_source",
        required=True,
        format_func=SOURCES.get,
        persist_state="session",
    )
    if source == "upload":
        # No type=: what a file is is told by its content, with a sentence where it is no picture.
        st.file_uploader(
            f"Chest X-ray as {FORMATS_TEXT}, up to {MAX_BYTES // 2**20} MB. It stays on this "
            "machine and is not stored.",
            key=UPLOADER,
            on_change=take_upload,
            max_upload_size=MAX_BYTES // 2**20,
        )
    elif source == "phantom":
        choose_phantom()
    else:
        choose_test_image(selection)


def choose_phantom() -> None:
    seed = st.session_state.get("predict_seed", 0)
    st.caption("Drawn by the program, SYNTHETIC: no patient. Each press draws another.")
    with st.container(horizontal=True):
        for label in PHANTOM_CLASSES:
            st.button(
                f"Draw {label}",
                icon=":material/draw:",
                on_click=draw_phantom,
                args=(label, seed),
                key=f"phantom_{label}",
            )


def choose_test_image(selection: ui.Selection) -> None:
    run = selection.run
    manifest = loaders.load_manifest(run)
    test = manifest[manifest["split"] == "test"]
    pictures = gallery.find_pictures(run)
    labels = dict(zip(test["image_id"], test["label"], strict=True))
    there = [image_id for image_id in labels if pictures.find(image_id) is not None]
    gallery.ask_for_folder(run, pictures)
    if there:
        st.selectbox(
            f"Test image ({len(there)} are on this machine; no model was trained on them)",
            there,
            index=None,
            key=TEST_IMAGE,
            placeholder="Choose or type",
            format_func=lambda image_id: f"{image_id} (true: {labels[image_id]})",
            on_change=take_test_image,
            args=(pictures, labels, run.synthetic),
        )


def show_answers(selection: ui.Selection, picture: Picture, answer: PictureAnswer) -> None:
    for sentence in answer.problems.values():
        st.warning(sentence, icon=":material/warning:")
    if selection.run.synthetic and not picture.synthetic:
        st.warning(
            "This run learned from drawn phantoms: what it says about a real picture means "
            "nothing.",
            icon=":material/draw:",
        )
    st.subheader(agreement_sentence(answer.answers), anchor=False)
    if picture.label is not None:
        what = "drawn as" if picture.synthetic else "labelled"
        st.markdown(f"The picture is {what} **{ui.escape(picture.label)}** in its source.")
    left, right = st.columns([1, 1.2], gap="medium")
    with left:
        if picture.synthetic and not selection.run.synthetic:
            ui.synthetic_badge()
        st.caption(f"{ui.escape(picture.name)}, {answer.width}×{answer.height} px {answer.format}")
        live.show_heat(answer, "predict", synthetic=picture.synthetic)
    with right:
        show_bars(selection, answer)
    if answer.answers:
        show_worth(selection, answer)


def show_bars(selection: ui.Selection, answer: PictureAnswer) -> None:
    if not answer.answers:
        return
    bars = [
        (
            selection.label(own.model),
            model_style(own.model, selection.run.models).colour,
            own.probabilities,
        )
        for own in answer.answers
    ]
    mean = mean_answer(selection.run, selection.models, answer.answers)
    if mean:
        bars.append((mean.title, MEAN_STYLE.colour, mean.probabilities))
    figure, alt = plot_probabilities(bars, answer.class_names, "this picture", live.theme())
    st.plotly_chart(figure, key="predict_bars", config={"displayModeBar": False}, alt=alt)


def show_worth(selection: ui.Selection, answer: PictureAnswer) -> None:
    """A card a model: what its answer is worth by the test part, and what it cost."""
    st.markdown("**How much the answers are worth**")
    with st.grid(min_column_width=CARD_WIDTH_PX, border=True):
        for own in answer.answers:
            with st.container():
                show_one_worth(selection, own, list(answer.class_names))
        mean = mean_answer(selection.run, selection.models, answer.answers)
        if mean:
            with st.container():
                show_mean_worth(selection, mean, list(answer.class_names))
    st.caption(
        "From the run's test images, for the class that the model says, with 95 % intervals. They "
        "hold for pictures like those of the test; elsewhere expect worse. Time: one picture on "
        "this machine, once warm, without reading the file."
    )


def show_one_worth(selection: ui.Selection, own: ModelAnswer, names: list[str]) -> None:
    st.markdown(
        f"{ui.model_mark(selection.run, own.model)} **{ui.escape(selection.label(own.model))}** "
        f"says **{ui.escape(own.predicted)}** {ui.percent(own.confidence)}  \n"
        f"{tested_words(selection, own.model, own.predicted, names)}  \n"
        f":gray[{own.latency_ms:.1f} ms, {ui.escape(own.precision)}, {own.input_size_px} px]"
    )


def show_mean_worth(selection: ui.Selection, mean: MeanAnswer, names: list[str]) -> None:
    """The ensemble with its own figures from the test part, or a mean that nobody measured."""
    said = f"says **{ui.escape(mean.predicted)}** {ui.percent(mean.confidence)}"
    if mean.model is None:
        st.markdown(
            f"**{ui.escape(mean.title)}** {said}  \n:gray[Not measured: a mean of models has "
            f"no figures in this run. {mean.latency_ms:.1f} ms]"
        )
        return
    st.markdown(
        f"{ui.model_mark(selection.run, mean.model)} **{ui.escape(mean.title)}** {said}  \n"
        f"{tested_words(selection, mean.model, mean.predicted, names)}  \n"
        f":gray[Mean of {ui.escape(', '.join(mean.members))}; {mean.latency_ms:.1f} ms together]"
    )


def tested_words(selection: ui.Selection, model: str, predicted: str, names: list[str]) -> str:
    """How far the test part bears this answer out, as Markdown."""
    says = ui.escape(predicted)
    try:
        tested = worth(loaders.load_metrics(selection.run, model), predicted, names)
    except ArtifactError as error:
        return ui.escape(str(error))
    return (
        f"Of the {says} images of the test it finds {_rate(tested, 'sensitivity', 'n_true')}."
        f"  \nOf its answers {says}, right are {_rate(tested, 'precision', 'n_predicted')}."
    )


def _rate(tested: dict, key: str, n_key: str) -> str:
    if tested[key] is None:
        return "a share that no test image tells"
    interval = tested[f"{key}_interval"]
    words = f" :gray[{100 * interval[0]:.1f} to {100 * interval[1]:.1f}]" if interval else ""
    return f"{ui.percent(tested[key])}{words} (n = {tested[n_key]})"


selection = ui.page_frame("Predict", ":material/upload_file:")
st.markdown(
    "These models answer for any picture, also one that is no chest X-ray: a guard against "
    "strange pictures is not built yet. Research use; an answer is no finding."
)
try:
    choose_picture(selection)
except ArtifactError as error:
    ui.empty_state(str(error))
problem = st.session_state.pop("predict_problem", None)
if problem:
    st.error(ui.escape(problem), icon=":material/error:")
picture: Picture | None = st.session_state.get(PICTURE)
if picture is None:
    st.info(
        "Drop a picture above, or take a drawn phantom or a test image.",
        icon=":material/upload_file:",
    )
    st.stop()
try:
    with st.spinner("Asking the models …"):
        answer = live.ask_models(selection, picture.data, picture.name)
except ImageError as error:
    st.error(f"{ui.escape(picture.name)}: {ui.escape(str(error))}", icon=":material/error:")
    st.stop()
show_answers(selection, picture, answer)
st.button("Clear", icon=":material/close:", on_click=clear, help="Take the picture away")
