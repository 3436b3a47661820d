"""The table of many pictures on the page Predict: progress, answers, filter, CSV."""

from __future__ import annotations

import datetime as dt
import weakref
from collections.abc import Callable, Sequence

import streamlit as st

from core.serving.predict import Predictor
from dashboard.components.choice import choose
from dashboard.components.markdown import escape, escape_sentence, init_name
from dashboard.components.page import offer_csv
from dashboard.components.sidebar import Selection
from dashboard.data import tokens
from dashboard.predict import batch as batches
from dashboard.predict import batch_table
from dashboard.predict.batch import Batch, BatchProgress, BatchRow, start_batch
from dashboard.predict.uploads import Upload, make_upload

_BATCH, _TOKEN, _ROUND = "batch", "batch_run", "batch_round"
PART, SHOW_REFUSED, CHOSEN = "batch_part", "batch_show_refused", "batch_chosen"
POLL_S = 1.0
NEWEST = 8  # rows shown while others are still to come
ROW_PX = 56
TABLE_PX = 560
ENDED = {
    batches.CANCELLED: "Cancelled: the rows so far are below.",
    batches.LEFT: (
        "Stopped, because nobody looked at this page for a while: the files were let go of. Drop "
        "the ones that are missing again."
    ),
    batches.FAILED: (
        "Something went wrong in the program; the server's log says what. The rows so far are "
        "below."
    ),
}


def put_batch(
    files: Sequence[tuple[str, bytes]], selection: Selection, predictor: Predictor
) -> None:
    """Begin to ask about files (name, bytes), zips among them, in place of those before."""
    clear_batch()
    # All models, so that the sidebar's choice of models needs no second asking.
    st.session_state[_BATCH] = start_batch(predictor, files)
    st.session_state[_TOKEN] = tokens.run_token(selection.run)


def has_batch() -> bool:
    """Whether this session holds a table of files."""
    return st.session_state.get(_BATCH) is not None


def clear_batch() -> None:
    """Stop what is running and let go of the rows and of the pixels."""
    held: Batch | None = st.session_state.pop(_BATCH, None)
    if held is not None:
        held.close()
    st.session_state.pop(PART, None)
    st.session_state.pop(SHOW_REFUSED, None)
    forget_choice()


def cancel_batch() -> None:
    """Stop what is running. Streamlit keeps what its buttons call until the session ends, so this
    is no method of the batch, which would outlive Clear."""
    held: Batch | None = st.session_state.get(_BATCH)
    if held is not None:
        held.cancel()


def show_batch(selection: Selection, predictor: Predictor) -> Upload | None:
    """Draw the session's batch; returns the picture that was chosen to be looked at alone."""
    held: Batch | None = st.session_state.get(_BATCH)
    if held is None:
        return None
    if st.session_state[_TOKEN] != tokens.run_token(selection.run):
        st.info(
            f"The table of files was made by run {escape(held.predictor.run.name)}: choose that "
            "run in the sidebar to see it, or drop the files again.",
            icon=":material/swap_horiz:",
        )
        st.button("Clear the table", icon=":material/close:", on_click=clear_batch)
        return None
    progress = held.progress()
    if progress.state == batches.RUNNING:
        _show_running(selection, held)
        return None
    return _show_ended(selection, held, progress)


# ------------------------------------------------------------------------------ while it runs


@st.fragment(run_every=POLL_S)
def _show_running(selection: Selection, held: Batch) -> None:
    progress = held.progress()
    if progress.state != batches.RUNNING:
        st.rerun()  # the whole page: the table takes the place of this
    rows = held.rows
    share = min(1.0, progress.done / max(1, progress.n))
    st.progress(share, text=progress_text(progress))
    st.button("Cancel", icon=":material/stop_circle:", on_click=cancel_batch, key="batch_cancel")
    if rows:
        newest = rows[-NEWEST:][::-1]
        st.caption(f"The {len(newest)} newest of {len(rows)}; all of them when it is done.")
        _draw_table(selection, newest, show_refused=False)


def progress_text(progress: BatchProgress) -> str:
    """What is being done, how far it is and how long it will take."""
    words = f"{progress.doing}: {progress.done} of {progress.n} files done"
    if progress.left_s is None:
        return words
    left = max(1, round(progress.left_s))
    time = f"{left} s" if left < 90 else f"{round(left / 60)} min"
    return f"{words}, {progress.rate:.1f} a second, about {time} left"


# ------------------------------------------------------------------------------ when it is done


def _show_ended(selection: Selection, held: Batch, progress: BatchProgress) -> Upload | None:
    rows, run = held.rows, selection.run
    guard = held.predictor.guard
    subject = guard.subject if guard else ""
    words = batch_table.summary_words(rows, progress, subject, selection.models)
    st.subheader(words[:1].upper() + words[1:], anchor=False)
    if progress.state in ENDED:
        st.warning(ENDED[progress.state], icon=":material/warning:")
    for sentence in [*held.notes, *held.predictor.problems.values()]:
        st.warning(escape_sentence(sentence), icon=":material/warning:")
    st.caption(
        f"{progress.done} files in {progress.seconds:.0f} s, {progress.rate:.1f} a second. "
        "The files were let go of as they were read; this table is kept until you clear it or "
        "close this tab."
        + (
            ""
            if guard
            else " This run has no guard, so nothing says what kind of picture a file is."
        )
    )
    if not rows:
        st.button("Clear the table", icon=":material/close:", on_click=clear_batch)
        return None
    with st.container(horizontal=True, vertical_alignment="bottom"):
        part = _choose_part(rows, selection.models, has_guard=guard is not None)
        show_refused = False
        if any(row.refused for row in rows):
            show_refused = st.toggle(
                "Show answers about refused pictures, too",
                key=SHOW_REFUSED,
                on_change=forget_choice,
                help="Models answer for any picture; for one of another kind it means nothing.",
                width="content",
            )
    shown = [row for row in rows if batch_table.belongs(row, part, selection.models)]
    with st.container(horizontal=True, vertical_alignment="bottom"):
        chosen = _choose_row(held, shown)
        offer_csv(
            "CSV",
            batch_table.file_table(shown, run, show_refused=show_refused),
            f"{run.name}-predictions-{dt.date.today():%Y-%m-%d}.csv",
            key="batch_csv",
            help="All numbers of the rows that are shown: shares as served and calibrated, sets, "
            "the guard's distance, and why a file has no answer.",
        )
        st.button("Clear the table", icon=":material/close:", on_click=clear_batch)
    _draw_table(selection, shown, show_refused=show_refused, key=_table_key())
    return _as_upload(held, chosen) if chosen else None


def _choose_part(rows: Sequence[BatchRow], models: Sequence[str], *, has_guard: bool) -> str:
    """Which rows to show, as tables_batch.belongs tells them apart."""
    counts = batch_table.count_parts(rows, models)
    names = {
        batch_table.ALL: "All",
        batch_table.RIGHT: "Looks right" if has_guard else "Read",
        batch_table.REFUSED: "Refused",
        batch_table.SPLIT: "Models disagree",
        batch_table.FAILED: "Could not be read",
    }
    options = {part: f"{name} {counts[part]}" for part, name in names.items() if counts[part]}
    return choose(
        "Show", options, PART, options, batch_table.ALL, on_change=forget_choice, wrap=True
    )


def forget_choice() -> None:
    """No picture of the table is looked at. A tick is a place in the table: with other rows there,
    it would be another picture's."""
    st.session_state[_ROUND] = st.session_state.get(_ROUND, 0) + 1
    st.session_state[CHOSEN] = None


def _table_key() -> str:
    return f"batch_table_{st.session_state.get(_ROUND, 0)}"


def _choose_row(held: Batch, rows: Sequence[BatchRow]) -> BatchRow | None:
    """A box to choose a picture by keyboard; a click in the table chooses in it."""
    numbers = {row.number: row for row in rows if row.answer is not None}
    if st.session_state.get(CHOSEN) not in numbers:
        st.session_state[CHOSEN] = None
    number = st.selectbox(
        "Look at one picture alone (or tick its row)",
        list(numbers),
        index=None,
        key=CHOSEN,
        format_func=_titled(held),
        placeholder="Choose or type",
        persist_state="session",
        width=420,
    )
    return None if number is None else numbers.get(number)


def _titled(held: Batch) -> Callable[[int], str]:
    """Names of the rows in the box. Like cancel_batch it must not keep the batch: asked weakly."""
    batch = weakref.ref(held)

    def title(number: int) -> str:
        rows = getattr(batch(), "rows", ())
        return f"{number}. {rows[number - 1].name}" if number <= len(rows) else str(number)

    return title


def _take_click(key: str, numbers: Sequence[int]) -> None:
    """What was ticked in the table, or nothing, goes into the box."""
    places = st.session_state[key]["selection"]["rows"]
    st.session_state[CHOSEN] = numbers[places[0]] if places else None


def _as_upload(held: Batch, row: BatchRow) -> Upload | None:
    decoded = held.picture(row.number)
    if decoded is None:
        st.info(
            f"The pixels of {escape(row.name)} are no longer here (a table keeps "
            f"{batches.MAX_KEPT_BYTES // 2**20} MB of them): drop it alone to look at it.",
            icon=":material/hide_image:",
        )
        return None
    return make_upload(row.name, decoded)


def _draw_table(
    selection: Selection, rows: Sequence[BatchRow], *, show_refused: bool, key: str | None = None
) -> None:
    """The rows as a table; with a key, rows can be ticked."""
    table = batch_table.shown_table(
        rows, selection.run, selection.models, show_refused=show_refused
    )
    if len({row.archive for row in rows}) < 2:
        table = table.drop(columns=batch_table.ARCHIVE)
    answered = any(row.answer is not None and (show_refused or not row.refused) for row in rows)
    if not answered:  # room for the sentences that say why
        table = table.drop(columns=table.columns[table.columns.get_loc(batch_table.KIND) + 1 :])
    numbers = [row.number for row in rows]
    st.dataframe(
        table,
        key=key,
        hide_index=True,
        row_height=ROW_PX,
        height=min(TABLE_PX, 42 + ROW_PX * max(1, len(rows))),
        column_config=_columns(selection, wide=not answered),
        on_select=(lambda: _take_click(key, numbers)) if key else "ignore",
        selection_mode="single-row",
        placeholder="",
        alt=f"Table of {len(rows)} files and what each model says",
    )


def _columns(selection: Selection, *, wide: bool) -> dict:
    config = st.column_config
    columns = {
        batch_table.PICTURE: config.ImageColumn(width=90, pinned=True),
        batch_table.NAME: config.TextColumn(width=230),
        batch_table.ARCHIVE: config.TextColumn(width=120),
        batch_table.KIND: config.TextColumn(
            width=700 if wide else 220,
            help="What the run's guard says of the picture, or why it was not read",
        ),
        batch_table.AGREE: config.TextColumn(width=150),
    }
    titles = batch_table.column_titles(selection.run, selection.models)
    for model, title in titles.items():
        init = init_name(selection.run, model) if model else ""
        whose = escape(title) + (f" ({escape(init)})" if init else "")
        columns[title] = config.TextColumn(width=150, help=f"The class that {whose} says")
        columns[f"{title}, %"] = config.NumberColumn(
            "%",
            width=70,
            format="%.1f",
            help=f"Probability of that class by {whose}, calibrated where the run can",
        )
        columns[f"{title}, not ruled out"] = config.TextColumn(
            "Not ruled out",
            width=150,
            help=f"Conformal set of {whose}: the classes that it cannot rule out",
        )
    return columns
