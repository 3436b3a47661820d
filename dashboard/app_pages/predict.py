"""One picture on every model: does it belong here, what do they say, and what is that worth."""

from __future__ import annotations

import streamlit as st

from core.datasets.phantom import generate
from core.imageio.decode import MAX_BYTES, Decoded, ImageError, read_image
from core.imageio.zip_archive import MAX_ZIP_BYTES, is_zip
from core.runs.artifacts import ArtifactError
from core.runs.missing_weights import retrain_command
from core.runs.run import Run
from dashboard.components import batch, evidence, gallery
from dashboard.components.choice import choose
from dashboard.components.guard import show_guard
from dashboard.components.live_predictions import forget_all, predict_models
from dashboard.components.markdown import escape, escape_sentence
from dashboard.components.page import empty_state, page_frame, synthetic_badge
from dashboard.components.predictions import show_agreement, show_bars, show_cards
from dashboard.components.sidebar import Selection
from dashboard.components.what_if import show_what_if
from dashboard.data import runs as run_data
from dashboard.predict import uploads

TEST_IMAGE, FORGET_TEST_IMAGE = "predict_test_image", "predict_forget_test_image"
FROM_BATCH, BATCH_ROW = "predict_from_batch", "predict_batch_row"
KINDS = {"ct": "Chest CT slices"}
FORMATS_TEXT = "PNG, JPEG, TIFF, BMP, WebP or DICOM"
SOURCES = {"upload": "Upload", "phantom": "Drawn phantom", "test": "Test image"}
PHANTOM_PX = 384


def put(upload: uploads.Upload | None, *, from_batch: bool = False) -> None:
    """Put another picture on the page; what was kept of the one before goes."""
    forget_all()
    uploads.put(upload)
    st.session_state[FROM_BATCH] = from_batch
    st.session_state[FORGET_TEST_IMAGE] = True


def clear() -> None:
    """Take the picture away: one of a table leaves the table, any other takes all with it."""
    if st.session_state.get(FROM_BATCH):
        batch.forget_choice()
    else:
        batch.clear_batch()
    put(None)


def draw_phantom(label: str, seed: int) -> None:
    """Draw a phantom of a class and put it on the page."""
    pixels = generate.make_phantom(label, seed, PHANTOM_PX, patient=seed).pixels
    decoded = Decoded(pixels, PHANTOM_PX, PHANTOM_PX, "drawn", "L", synthetic=True)
    put(uploads.make_upload(f"phantom-{label}-{seed}", decoded, label))
    st.session_state["predict_seed"] = seed + 1


def take_test_image(
    image_files: run_data.ImageFiles, labels: dict[str, str], synthetic: bool
) -> None:
    """Put the chosen test image on the page."""
    image_id = st.session_state.get(TEST_IMAGE)
    path = image_files.find(image_id) if image_id else None
    if image_id is None or path is None:
        return
    try:
        decoded = read_image(path)
    except ImageError as error:
        uploads.say_problem(path.name, error)
        return
    put(uploads.make_upload(path.name, decoded, labels[image_id], synthetic=synthetic))
    st.session_state[FORGET_TEST_IMAGE] = False


# ------------------------------------------------------------------------------ what goes in


def choose_image(selection: Selection) -> None:
    """Upload, phantom or test image; each puts its picture into the session."""
    left, right = st.columns([1, 1.7], gap="medium")
    with left:
        source = choose("Picture from", SOURCES, "predict_source", SOURCES, wrap=True)
    with right:
        if source == "upload":
            # No type=: what a file is is told by its content, with a sentence where it is no
            # picture.
            st.file_uploader(
                f"{KINDS.get(selection.run.modality, 'Chest X-rays')} as {FORMATS_TEXT}, one or "
                f"several, up to {MAX_BYTES // 2**20} MB each, or a zip of them up to "
                f"{MAX_ZIP_BYTES // 2**20} MB",
                accept_multiple_files=True,
                key=uploads.uploader_key(),
                on_change=uploads.take_files,
                max_upload_size=max(MAX_BYTES, MAX_ZIP_BYTES) // 2**20,
            )
        elif source == "phantom":
            choose_phantom()
        else:
            choose_test_image(selection)
    if source == "upload":
        evidence.show_retention_notice()


def choose_phantom() -> None:
    """A button a class that draws a phantom."""
    seed = st.session_state.get("predict_seed", 0)
    st.caption("Drawn by the program, SYNTHETIC: no patient. Each press draws another.")
    with st.container(horizontal=True):
        for label in generate.class_names:
            st.button(
                f"Draw {label}",
                icon=":material/draw:",
                on_click=draw_phantom,
                args=(label, seed),
                key=f"phantom_{label}",
            )


def choose_test_image(selection: Selection) -> None:
    """A box with the run's test images that are on this machine."""
    run = selection.run
    manifest = run_data.load_manifest(run)
    test = manifest[manifest["split"] == "test"]
    image_files = gallery.find_image_files(run)
    labels = dict(zip(test["image_id"], test["label"], strict=True))
    there = [image_id for image_id in labels if image_files.find(image_id) is not None]
    gallery.ask_for_folder(run, image_files)
    if st.session_state.pop(FORGET_TEST_IMAGE, False):
        # With another picture here, choosing the same test image again must be a change.
        st.session_state[TEST_IMAGE] = None
    if there:
        st.selectbox(
            f"Test image ({len(there)} are on this machine; no model was trained on them)",
            there,
            index=None,
            key=TEST_IMAGE,
            placeholder="Choose or type",
            format_func=lambda image_id: f"{image_id} (true: {labels[image_id]})",
            on_change=take_test_image,
            args=(image_files, labels, run.synthetic),
        )


def read_waiting(selection: Selection) -> None:
    """What was dropped: one picture is looked at, several or a zip make a table."""
    with st.spinner("Reading the file …"):
        files = uploads.waiting_files()
        if len(files) > 1 or any(is_zip(data) for _, data in files):
            put(None)
            batch.put_batch(files, selection, run_data.load_predictor(selection.run))
            return
        for name, data in files:
            try:
                put(uploads.read_upload(name, data))
            except ImageError as error:  # the earlier picture stays
                uploads.say_problem(name, error)


# ------------------------------------------------------------------------------ what comes out


def show_batch(selection: Selection) -> bool:
    """The table; True where another row was chosen in it, so that the page has to be drawn anew."""
    chosen = batch.show_batch(selection, run_data.load_predictor(selection.run))
    # A row stays chosen while another picture is on the page: only a new choice counts.
    key = chosen.key if chosen else None
    if key == st.session_state.get(BATCH_ROW):
        return False
    st.session_state[BATCH_ROW] = key
    if chosen is not None:
        put(chosen, from_batch=True)
        return True
    if st.session_state.get(FROM_BATCH):
        put(None)
        return True
    return False


def show_image(selection: Selection, upload: uploads.Upload) -> None:
    """Everything that is said of one image."""
    with st.spinner("Asking the models …"):
        predictor = run_data.load_predictor(selection.run)
        answer = predict_models(selection, upload)
    with st.container(horizontal=True, vertical_alignment="center"):
        evidence.show_file(upload)
        if upload.decoded.synthetic and not selection.run.synthetic:
            synthetic_badge()
        if st.session_state.get(FROM_BATCH):
            st.button("Back to the table", icon=":material/arrow_back:", on_click=clear)
        else:
            st.button(
                "Clear", icon=":material/close:", on_click=clear, help="Take the picture away"
            )
    if not show_guard(predictor, upload, answer):
        return
    show_agreement(selection, upload, answer)
    evidence.warn_of_duplicate(selection.run, predictor, answer)
    left, right = st.columns([1, 1.35], gap="medium")
    with left:
        evidence.show_map(selection, upload, answer)
    with right:
        show_cards(selection, answer)
    if not answer.predictions:
        return
    left, right = st.columns(2, gap="medium")
    with left:
        evidence.show_nearest(selection, predictor, answer)
    with right:
        show_bars(selection, answer)
    what_if = st.expander(
        "What if the picture were another: brightness, rotation, a part hidden",
        icon=":material/tune:",
        key="predict_what_if",
        on_change="rerun",
    )
    if what_if.open:
        with what_if:
            show_what_if(selection, predictor, upload, answer)
    evidence.show_report(selection, predictor, upload, answer)


def show_no_weights(run: Run) -> None:
    """The empty state of a run whose weights were not kept."""
    others = run_data.list_usable_models(run.name)
    sentence = (
        f"The weights of run **{escape(run.name)}** were not kept, so its models cannot look at "
        "new pictures; every other page shows the run as it was measured. "
    )
    if others:
        listed = " or ".join(f"**{escape(name)}**" for name in others[:3])
        sentence += f"To ask models about a picture, choose the run {listed} in the sidebar; "
    else:
        sentence += "No other run here can be asked either; "
    empty_state(f"{sentence}this command trains its models again:", retrain_command(run.info))


def draw_page() -> None:
    """The page. In a function: Streamlit keeps a script's globals with its buttons' callbacks, and
    a picture among them would outlive Clear."""
    selection = page_frame("Predict", ":material/upload_file:")
    if not selection.run.served:
        show_no_weights(selection.run)
    try:
        choose_image(selection)
    except ArtifactError as error:
        empty_state(escape_sentence(str(error)))
    if uploads.any_waiting():
        read_waiting(selection)
        st.rerun()
    problem = uploads.take_problem()
    if problem:
        st.error(escape_sentence(problem), icon=":material/error:")
    from_batch = st.session_state.get(FROM_BATCH)
    if batch.has_batch() and (uploads.current() is None or from_batch):
        show_batch(selection)
    upload = uploads.current()
    if upload is not None:
        show_image(selection, upload)
        if batch.has_batch() and not st.session_state.get(FROM_BATCH):
            st.subheader("The pictures dropped before", anchor=False)
            if show_batch(selection):
                st.rerun()
    elif not batch.has_batch():
        st.info(
            "Drop a picture above, or take a drawn phantom or a test image. Research use: an "
            "answer is no finding.",
            icon=":material/upload_file:",
        )


draw_page()
