"""What if the picture were brighter, turned, cropped or partly hidden: the models, asked live."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import streamlit as st

from core.datasets.phantom.generate import label_synthetic
from core.serving.predict import ImagePrediction, Predictor
from core.serving.what_if import MIN_VISIBLE, Box, Changes, apply_changes, describe_changes
from dashboard.charts.style import model_style
from dashboard.charts.what_if import (
    Movement,
    dragged_box,
    headline,
    movement_text,
    plot_image,
    plot_movement,
)
from dashboard.components.markdown import escape, model_mark
from dashboard.components.page import show_chart, theme
from dashboard.components.sidebar import Selection
from dashboard.data import tokens
from dashboard.predict.model_choice import shown_pixels
from dashboard.predict.uploads import Upload

_OF, _ROUND = "whatif_of", "whatif_round"
BRIGHTNESS, CONTRAST, ROTATION = "whatif_brightness", "whatif_contrast", "whatif_rotation"
FLIP, ACROSS, DOWN, FILL = "whatif_flip", "whatif_across", "whatif_down", "whatif_fill"
LEFT, TOP, WIDTH, HEIGHT = BOX = ("whatif_left", "whatif_top", "whatif_width", "whatif_height")
# In percent, as people set them; contrast too, because "1.7 times" says less than "170 %".
NEUTRAL = {
    BRIGHTNESS: 0, CONTRAST: 100, ROTATION: 0, FLIP: False, ACROSS: (0, 100), DOWN: (0, 100),
    FILL: "mean", LEFT: 0, TOP: 0, WIDTH: 0, HEIGHT: 0,
}  # fmt: skip
FILL_NAMES = {"mean": "Mean grey", "black": "Black"}
PURPOSE = (
    "A model whose answer moves a lot for a small change is not to be trusted on this picture. A "
    "region whose hiding moves nothing was not used; a box is no anatomy, though, and hiding "
    "makes a picture such as no model was trained on."
)


def show_what_if(
    selection: Selection, predictor: Predictor, upload: Upload, answer: ImagePrediction
) -> None:
    """Sliders that change the picture and ask the models again; answer: that of the picture as it
    is. Every new picture begins unchanged."""
    whose = (upload.sha256, tokens.run_token(selection.run))
    if st.session_state.get(_OF) != whose:
        st.session_state[_OF] = whose
        _reset()
    _panel(selection, predictor, upload, answer)


@st.fragment
def _panel(
    selection: Selection, predictor: Predictor, upload: Upload, answer: ImagePrediction
) -> None:
    st.caption(PURPOSE)
    changes = _read_changes()
    left, right = st.columns([1, 1.2], gap="medium")
    changed = apply_changes(upload.decoded.pixels, changes)
    with left:
        _draw_image(upload, changed, changes)
        # Beneath the picture, so that on a phone, too, both are in sight.
        movements = _say_predictions(selection, predictor, upload, answer, changed, changes)
    with right:
        _draw_sliders()
        _draw_box_inputs(changes)
        chart = plot_movement(movements, answer.class_names, theme())
        show_chart(chart, key="whatif_movement")


def _reset(keys: tuple[str, ...] = tuple(NEUTRAL)) -> None:
    for key in keys:
        st.session_state[key] = NEUTRAL[key]
    _forget_drag()


def _forget_drag() -> None:
    """The chart keeps the outline that was dragged; under another key it begins without one."""
    st.session_state[_ROUND] = st.session_state.get(_ROUND, 0) + 1


def _read_changes() -> Changes:
    """The changes that the widgets say."""
    state = {key: st.session_state.get(key, value) for key, value in NEUTRAL.items()}
    (left, right), (top, bottom) = (_kept(state[key]) for key in (ACROSS, DOWN))
    box = None
    if state[WIDTH] and state[HEIGHT]:
        x, y = min(state[LEFT], 99), min(state[TOP], 99)
        width, height = min(state[WIDTH], 100 - x), min(state[HEIGHT], 100 - y)
        box = Box(x / 100, y / 100, width / 100, height / 100)
    return Changes(
        brightness=state[BRIGHTNESS],
        contrast=state[CONTRAST] / 100,
        rotation=state[ROTATION],
        flip=state[FLIP],
        across=(left / 100, right / 100),
        down=(top / 100, bottom / 100),
        hidden=box,
        fill=state[FILL] or "mean",
    )


def _kept(ends: tuple[int, int]) -> tuple[int, int]:
    """What a range slider keeps; where its handles are too close together, the least there is."""
    start, stop = ends
    least = round(100 * MIN_VISIBLE)
    if stop - start >= least:
        return start, stop
    start = min(start, 100 - least)
    return start, start + least


def _take_drag(key: str) -> None:
    box = dragged_box(st.session_state[key])
    if box is None:
        return
    sides = (box.left, box.top, box.width, box.height)
    for name, share in zip(BOX, sides, strict=True):
        st.session_state[name] = round(100 * share)
    _forget_drag()


def _draw_image(upload: Upload, changed: np.ndarray, changes: Changes) -> None:
    shown = shown_pixels(changed)
    synthetic = upload.decoded.synthetic
    if synthetic:
        shown = label_synthetic(shown)
    words = describe_changes(changes)
    kind = "Drawn phantom, SYNTHETIC, " if synthetic else "Picture "
    alt = f"{kind}{upload.name}, {words or 'unchanged'}."
    key = f"whatif_picture_{st.session_state[_ROUND]}"
    st.plotly_chart(
        plot_image(shown, alt, changes.hidden).figure,
        key=key,
        on_select=lambda: _take_drag(key),
        selection_mode="box",
        config={"displayModeBar": False, "scrollZoom": False, "doubleClick": False},
        alt=alt,
    )
    st.caption(f"{words[:1].upper()}{words[1:]}." if words else "The picture as it is.")


def _draw_box_inputs(changes: Changes) -> None:
    st.markdown("**Hide a region**: drag a box on the picture, or set it here (percent of a side)")
    with st.container(horizontal=True):
        for key, label in zip(BOX, ("Left", "Top", "Width", "Height"), strict=True):
            st.number_input(
                label,
                0,
                100,
                step=5,
                key=key,
                width=130,
                on_change=_forget_drag,
                persist_state="session",
            )
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.segmented_control(
            "Fill of the box and of what rotation brings in",
            list(FILL_NAMES),
            key=FILL,
            required=True,
            format_func=FILL_NAMES.__getitem__,
            persist_state="session",
        )
        st.button(
            "Remove the box",
            icon=":material/select:",
            key="whatif_reset_box",
            on_click=_reset,
            args=(BOX,),
            disabled=changes.hidden is None,
        )


def _draw_sliders() -> None:
    with st.grid(min_column_width=230):
        st.slider(
            "Brightness",
            -100,
            100,
            step=5,
            key=BRIGHTNESS,
            format="%+d levels",
            help="Grey levels of 255 that are added",
            persist_state="session",
        )
        st.slider(
            "Contrast",
            20,
            300,
            step=5,
            key=CONTRAST,
            format="%d %%",
            help="About the picture's own mean",
            persist_state="session",
        )
        st.slider(
            "Rotation",
            -45,
            45,
            step=1,
            key=ROTATION,
            format="%+d°",
            help="Counterclockwise about the middle; the picture keeps its size",
            persist_state="session",
        )
        st.slider(
            "Crop, left and right",
            0,
            100,
            step=1,
            key=ACROSS,
            format="%d %%",
            help="Crop: what is left of and right of the handles goes (at least "
            f"{100 * MIN_VISIBLE:.0f} % stays)",
            persist_state="session",
        )
        st.slider(
            "Crop, top and bottom",
            0,
            100,
            step=1,
            key=DOWN,
            format="%d %%",
            help="Crop: what is above and below the handles goes, counted from the top",
            persist_state="session",
        )
        with st.container(vertical_alignment="bottom", height="stretch"):
            st.toggle("Flip left to right", key=FLIP, persist_state="session")
            st.button(
                "Reset all", icon=":material/restart_alt:", on_click=_reset, key="whatif_reset"
            )


def _say_predictions(
    selection: Selection,
    predictor: Predictor,
    upload: Upload,
    answer: ImagePrediction,
    changed: np.ndarray,
    changes: Changes,
) -> list[Movement]:
    """Ask about the changed picture and say in words what moved."""
    names = answer.class_names
    now = answer
    if not changes.neutral:
        height, width = changed.shape
        decoded = replace(upload.decoded, pixels=changed, width=width, height=height)
        now = predictor.predict_many([decoded], chosen=selection.models)[0]
    movements = _movements(selection, answer, now)
    if changes.neutral:
        first = "Nothing is changed yet: move a slider, or drag a box on the picture."
    else:
        first = f"**{escape(headline(movements, names))}**"
    lines = [
        f"{model_mark(selection.run, one.model)} {escape(movement_text(one, names))}"
        for one in movements
    ]
    st.markdown("  \n".join([first, *lines]))
    if not changes.neutral:
        _say_guard(answer, now)
    return movements


def _movements(
    selection: Selection, before: ImagePrediction, after: ImagePrediction
) -> list[Movement]:
    """The models that answered both times, in the order of the answers."""
    pairs = [(own, after.of(own.model)) for own in before.predictions]
    return [
        Movement(
            own.model,
            own.title,
            model_style(own.model, selection.run.models),
            own.shares,
            then.shares,
            own.predicted,
            then.predicted,
        )
        for own, then in pairs
        if then is not None
    ]


def _say_guard(before: ImagePrediction, after: ImagePrediction) -> None:
    if after.judgement is None:
        return
    sentence = escape(after.judgement.sentence)
    if after.refused:
        again = "still refused" if before.refused else "would be refused"
        st.warning(f"The changed picture {again}. {sentence}", icon=":material/block:")
    else:
        st.caption(f":material/verified: The changed picture would pass. {sentence}")
