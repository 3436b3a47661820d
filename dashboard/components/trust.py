"""The sections of Reliability checks, one function each: say, plot, and the method on demand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import pandas as pd
import streamlit as st

from core.datasets.phantom.generate import label_synthetic
from core.imageio.decode import ImageError
from core.reporting import verdict
from core.reporting.scorecard.audit_checks import HALF
from core.reporting.scorecard.base import external_command
from core.reporting.scorecard.scorecard import Evidence
from dashboard.charts import trust as trust_charts
from dashboard.charts.style import Chart
from dashboard.components import gallery
from dashboard.components.choice import choose
from dashboard.components.markdown import escape, escape_sentence, model_mark, shorten
from dashboard.components.page import show_table, synthetic_badge
from dashboard.components.sidebar import Selection
from dashboard.data import runs as run_data
from dashboard.data import trust as trust_data
from dashboard.tables import trust as trust_tables
from dashboard.tables.metrics import Metrics

THUMBNAIL_PX = 256
BARE = {"displayModeBar": False}  # a chart that is only looked at
SHOWN_PAIRS = 6
COLUMN_KEY, WHAT_KEY = "trust_column", "trust_what"


def show_dots(selection: Selection, name: str, points: Callable[[], tuple], **words) -> None:
    """plot_dot_rows of the tables that points() gives: (points, references or None)."""

    def build() -> Chart:
        table, references = points()
        return trust_charts.plot_dot_rows(table, selection.frame, references=references, **words)

    chart = trust_data.keep_chart(selection.run, selection.models, name, build)
    st.markdown(f"**{escape(chart.title)}**  \n{legend(selection)}")
    st.plotly_chart(chart.figure, alt=chart.alt, key=name, config=BARE)


def titles(selection: Selection) -> dict[str, str]:
    """Short names of the chosen models."""
    return {model: selection.title(model) for model in selection.models}


def marked(selection: Selection) -> dict[str, str]:
    """Markdown names with the models' marks, for tables."""
    return {
        model: f"{model_mark(selection.run, model)}\u00a0{escape(selection.title(model))}"
        for model in selection.models
    }


def legend(selection: Selection) -> str:
    """Markdown: the models' marks in one line."""
    return " · ".join(marked(selection).values())


def not_done(sentence: str, command: str = "") -> None:
    """A section that has nothing to show: why, and what would fill it."""
    st.info(escape_sentence(sentence), icon=":material/pending:")
    if command:
        st.code(command, language="bash", wrap_lines=True)


def show_method(*paragraphs: str) -> None:
    """How it was measured, for those who ask. Plain text: names from files may be in it."""
    with st.expander("How this was measured", icon=":material/science:"):
        for paragraph in filter(None, paragraphs):
            st.markdown(escape(paragraph))


def show_sentences(
    selection: Selection, said: Mapping[str, str], icons: Mapping[str, str] | None = None
) -> None:
    """One line a model: its mark and what is said of it."""
    lines = [
        f"{(icons or {}).get(model, '')}{model_mark(selection.run, model)} {escape(words)}"
        for model, words in said.items()
        if words
    ]
    if lines:
        st.markdown("  \n".join(lines))


# ------------------------------------------------------------------------------ leakage


def show_leakage(selection: Selection, section: Mapping[str, Any]) -> None:
    """Copies and patients that stand in more than one split."""
    st.markdown(escape(trust_tables.leakage_sentence(section)))
    for caveat in section.get("caveats") or []:
        st.markdown(f":material/warning: {escape(caveat)}")
    pairs = trust_tables.crossing_pairs(section)
    if pairs:
        show_pairs(selection, pairs)
    shared = trust_tables.shared_table(section)
    if len(shared):
        st.markdown("**Patients in more than one part**")
        st.dataframe(shared, hide_index=True, alt="Patients in more than one part, with images")
    every = trust_tables.pair_table(section)
    if len(every):
        with st.expander(f"All {len(every)} pairs of copies", icon=":material/content_copy:"):
            st.dataframe(
                every,
                hide_index=True,
                column_config={"correlation": st.column_config.NumberColumn(format="%.3f")},
                alt="Pairs of images that are copies of each other, exact or near",
            )
    show_method(f"{trust_tables.checked_text(section)}.", section["method"])


def show_pairs(selection: Selection, pairs: list[dict[str, Any]]) -> None:
    """The pairs that stand in different parts, side by side."""
    image_files = gallery.find_image_files(selection.run)
    gallery.ask_for_folder(selection.run, image_files)
    st.markdown(
        f"**Copies in different parts: {len(pairs)} pairs**"
        + (f", the first {SHOWN_PAIRS} here" if len(pairs) > SHOWN_PAIRS else "")
    )
    with st.grid(2, min_column_width=330, border=True):
        for pair in pairs[:SHOWN_PAIRS]:
            with st.container():
                show_pair(selection, pair, image_files)


def show_pair(selection: Selection, pair: dict[str, Any], image_files: run_data.ImageFiles) -> None:
    """Two images that are copies of each other."""
    alike = pair["correlation"]
    words = f"{pair['kind']} copy" + (f", correlation {alike:.3f}" if alike is not None else "")
    words += ", mirrored" if pair.get("mirrored") else ""
    st.markdown(f":material/content_copy: {escape(words)}")
    for column, side in zip(st.columns(2, wrap=False), ("a", "b"), strict=True):
        with column:
            part = trust_tables.SPLIT_NAMES.get(pair[f"split_{side}"], pair[f"split_{side}"])
            show_image(selection, pair[f"image_id_{side}"], part, image_files)


def show_image(
    selection: Selection, image_id: str, part: str, image_files: run_data.ImageFiles
) -> None:
    """A small image with its split, or its name where it is not on this machine."""
    caption = f"{part}: {shorten(image_id, 34)}"
    path = image_files.find(image_id)
    try:
        pixels = None if path is None else run_data.read_thumbnail(path, THUMBNAIL_PX)
    except ImageError:
        pixels = None
    if pixels is None:
        st.caption(f":material/hide_image: {escape(caption)}", help=image_id)
        return
    square = gallery.letterboxed(pixels, THUMBNAIL_PX)
    synthetic = selection.run.synthetic
    kind = "Drawn phantom, SYNTHETIC" if synthetic else "Image"
    st.image(
        label_synthetic(square) if synthetic else square,
        caption=escape(caption),
        width="stretch",
        alt=f"{kind} {image_id}, {part}",
    )


# ------------------------------------------------------------------------------ floors


def show_baselines(selection: Selection, metrics: Metrics) -> None:
    """What shortcuts reach without any network, beside the models."""
    baselines = selection.run.info.get("floors") or {}
    if not baselines:
        not_done("No shortcut was measured when this run was made.")
        return
    shown = {model: metrics[model] for model in selection.models}
    st.markdown(
        "What one gets on the same test images without any network, from properties that have "
        f"nothing to do with disease: {escape(verdict.highest_baselines(baselines))}."
    )
    lost = {m: verdict.unbeaten_baselines(figures, baselines) for m, figures in shown.items()}
    for model, names in lost.items():
        if names:
            title = escape(selection.title(model))
            st.markdown(f":material/close: **{title}** is not above {escape('; '.join(names))}.")
    n = shown[selection.models[0]]["n"]
    for column, (key, word) in zip(st.columns(2), verdict.BASELINE_METRICS.items(), strict=True):
        name = word[0].upper() + word[1:]
        with column:
            show_dots(
                selection,
                f"floors_{key}",
                partial(trust_tables.baseline_points, shown, baselines, key),
                title=f"{name} of models and of shortcuts, n = {n} test images",
                axis=f"{name}, percent, with 95% intervals",
                line=trust_tables.highest(baselines, key),
            )
    show_method(
        "Each floor is a small classifier (a random forest) on one harmless-looking property, "
        "trained on the run's own training and validation images and scored on its test images. "
        "Pixel floors see the very pixels that the models get; file properties are apart. The "
        "intervals draw whole patients. A model passes where the lower end of its interval is "
        "above every floor's figure; the floors' own uncertainty does not enter."
    )


# ------------------------------------------------------------------------------ blackout


def show_blackout(selection: Selection, section: Mapping[str, Any]) -> None:
    """Accuracy with the lungs hidden, or only the lungs shown."""
    rows = {model: section["models"].get(model, {}) for model in selection.models}
    show_sentences(
        selection,
        {model: row.get("sentence", "") for model, row in rows.items()},
        {model: f"{_blackout_icon(row)} " for model, row in rows.items()},
    )
    left, right = st.columns([3, 2], gap="medium")
    with left:
        show_dots(
            selection,
            "blackout",
            partial(trust_tables.blackout_points, section, selection.models),
            title=f"Accuracy with the lungs hidden, n = {section['n']} test images",
            axis="accuracy, percent, with 95% intervals",
            line=("always the most frequent class", section["majority_rate"]),
        )
    with right:
        show_region(section)
    st.markdown("**Share of the gain above the most frequent class that is kept**")
    show_table(trust_tables.retained_table(section, marked(selection)))
    show_method(
        section["region"]["rule"],
        *(f"Fill {k}: {words}." for k, words in enumerate(section["fills"].values(), start=1)),
        section["rule"],
        "Grey crosses are small classifiers trained and scored on the same altered images: where "
        "they do well too, the rest of the picture, or the hiding itself, gives the classes away.",
    )


def _blackout_icon(row: Mapping[str, Any]) -> str:
    """A tick only where the whole interval of what is kept lies below half, with every fill."""
    if row.get("flagged"):
        return ":material/flag:"
    kept = [one["kept"] for one in row.get("without_lungs", {}).values()]
    if not kept or any(one["share"] is None or one["high"] is None for one in kept):
        return ":material/pending:"
    cleared = all(one["high"] < HALF for one in kept)
    return ":material/check:" if cleared else ":material/question_mark:"


def show_region(section: Mapping[str, Any]) -> None:
    """What is hidden, on a drawn phantom, with each kind of fill."""
    synthetic_badge()
    for number, (fill, words) in enumerate(section["fills"].items(), start=1):
        st.caption(f"Fill {number}: {escape(words)}")
        image_files = trust_data.draw_region(section["region"], fill)
        with st.grid(len(image_files), min_column_width=95):
            for caption, pixels in image_files:
                alt = f"Drawn phantom, SYNTHETIC: {caption.lower()}, fill {number}"
                st.image(pixels, caption=caption, width="stretch", alt=alt)


# ------------------------------------------------------------------------------ probe


def show_probe(
    selection: Selection, evidence: Evidence, metrics: Metrics, section: dict[str, Any]
) -> None:
    """What the models say of images of other diseases from the same source."""
    target = evidence.target
    st.markdown(f"{escape(section['question'])}")
    said = {
        model: section["models"].get(model, {}).get("sentence", "") for model in selection.models
    }
    show_sentences(selection, said)
    show_dots(
        selection,
        "probe",
        lambda: (trust_tables.probe_points(section, metrics, selection.models, target), None),
        title=f"Images of other diseases called {target}, in percent: n = {section['n']} of "
        f"{section['n_patients']} patients",
        axis=f"called {target}, percent, with 95% intervals",
        line=("half", 0.5),
    )
    with st.expander(f"All {len(section['images'])} images", icon=":material/list:"):
        rows = trust_tables.probe_table(section, titles(selection), target)
        shares = [name for name in rows if name.startswith("p ")]
        config = {name: st.column_config.NumberColumn(format="%.1f") for name in shares}
        st.caption(f"Probability of {target} in percent.")
        st.dataframe(rows, hide_index=True, column_config=config, alt="The images of the probe")
    show_excluded(section["excluded"], "probe")
    show_method(str(section.get("method") or ""), _small(section["n_patients"]))


def _small(n_patients: int) -> str:
    return (
        f"With {n_patients} patients the intervals are wide: read their ends, not the dots."
        if n_patients < 50
        else ""
    )


def show_excluded(excluded: Sequence[Mapping[str, Any]], key: str) -> None:
    """Which images were left out and why, on demand."""
    words = trust_tables.excluded_text(excluded)
    if not words:
        return
    with st.expander(escape(words), icon=":material/block:", key=f"excluded_{key}"):
        columns = ("image_id", "reason", "other", "correlation")
        rows = [{name: entry.get(name) for name in columns} for entry in excluded]
        table = pd.DataFrame(rows, columns=list(columns)).dropna(axis="columns", how="all")
        st.dataframe(table, hide_index=True, alt="Images that were left out and why")


# ------------------------------------------------------------------------------ perturbation


def show_perturbation(
    selection: Selection, audit: Mapping[str, Any], section: Mapping[str, Any]
) -> None:
    """Accuracy when images are changed a little."""
    said = {}
    for model in selection.models:
        steepest = section["models"].get(model, {}).get("steepest") or {}
        said[model] = steepest.get("sentence", "")
    show_sentences(selection, said)
    curves = trust_tables.perturbation_curves(section, selection.models)
    if not len(curves):
        not_done("No altered image was shown to the chosen models.")
        return
    n = audit["n_test"]
    st.markdown(
        f"**Accuracy in percent of n = {n} test images, with 95% intervals**  \n{legend(selection)}"
    )
    lowest = curves[["low", "value"]].min().min()
    with st.grid(3, min_column_width=320, border=True):
        for kind, how in section["kinds"].items():
            with st.container():
                build = partial(
                    trust_charts.plot_perturbation,
                    curves[curves["kind"] == kind],
                    selection.frame,
                    title=how["title"],
                    unit=how["unit"],
                    neutral=how["neutral"],
                    lowest=lowest,
                )
                name = f"perturbation_{kind}"
                chart = trust_data.keep_chart(selection.run, selection.models, name, build)
                st.markdown(f"**{escape(how['title'])}** :gray[{escape(how['unit'])}]")
                st.plotly_chart(chart.figure, alt=chart.alt, key=name, config=BARE)
    show_method(
        "Every test image is altered at each strength and asked about again, without mirrored "
        "copies. The dotted line is the unaltered image; strengths stand at equal distances. The "
        "bands are 95\u202f% intervals that draw whole patients."
    )


# ------------------------------------------------------------------------------ subgroups


def show_subgroups(selection: Selection, section: Mapping[str, Any]) -> None:
    """Accuracy or sensitivity by a column of the manifest."""
    columns = {column["column"]: column for column in section["columns"]}
    if not columns:
        not_done("The data set has no column by which test images could be grouped.")
        _left_out(section)
        return
    with st.container(horizontal=True):
        titles = {name: str(column["title"]) for name, column in columns.items()}
        column = columns[choose("By", titles, COLUMN_KEY, titles)]
        choices = trust_tables.subgroup_choices(column, selection.run.class_names)
        if not choices:
            not_done("No figure is known for these groups.")
            return
        names = {name: f"sensitivity, {name}" for name in choices}
        names |= {trust_tables.ACCURACY: "accuracy"}
        what = choose("Shown", choices, WHAT_KEY, names)
    if column.get("why"):
        st.info(escape(column["why"]), icon=":material/visibility_off:")
    words = "Accuracy" if what == trust_tables.ACCURACY else f"Sensitivity for {what}"
    points = trust_tables.subgroup_points(column, selection.models, what, section["min_n"])
    show_dots(
        selection,
        f"subgroups_{column['column']}_{what}",
        lambda: (points, None),
        title=f"{words} by {str(column['title']).lower()}, in percent of each group's test images",
        axis=f"{words[0].lower()}{words[1:]}, percent, with 95% intervals",
    )
    if points["faded"].any():
        st.caption(f"Pale: groups of fewer than {section['min_n']} patients, too few to judge.")
    _left_out(section)
    show_method(str(section.get("rule") or ""))


def _left_out(section: Mapping[str, Any]) -> None:
    left = section.get("left_out") or []
    if left:
        listed = "; ".join(f"{entry['column']} ({entry['reason']})" for entry in left)
        st.caption(f"Not grouped by: {escape(listed)}.")


# ------------------------------------------------------------------------------ external


def show_external(selection: Selection, evidence: Evidence, metrics: Metrics) -> None:
    """Figures on images from elsewhere, set by set."""
    if not evidence.external:
        not_done("No images from elsewhere were scored.", external_command(selection.run))
        return
    for name, doc in evidence.external.items():
        show_external_set(selection, name, doc, metrics, evidence.target)
    show_method(
        "Hollow marks are the same models on images from elsewhere. Images that are copies of "
        "those the run learned from, or show their patients, are left out before anything is "
        "scored. Intervals draw whole patients of each set; the interval of a difference draws "
        "both, independently of each other. Where classes are missing there, the run's own figures "
        "are those of the classes that both have."
    )


def show_external_set(
    selection: Selection, name: str, doc: Mapping[str, Any], metrics: Metrics, target: str
) -> None:
    """One external set: figures beside the run's own, and what was left out."""
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f"##### {escape(doc['title'])}", width="content")
        st.badge(f"n = {doc['n']} images, {doc['n_patients']} patients", color="gray")
    st.markdown(escape(trust_tables.external_sentence(doc, metrics, titles(selection))))
    for caveat in doc["caveats"]:
        st.markdown(f":material/warning: {escape(caveat)}")
    inflated = trust_tables.overlap_sentence(doc, titles(selection))
    if inflated:
        st.markdown(f":material/content_copy: {escape(inflated)}")
    if doc.get("labelled", True):
        points = trust_tables.external_points(doc, metrics, selection.models)
        if len(points):
            show_dots(
                selection,
                f"external_{name}",
                lambda: (points, None),
                title="The run's own test images (filled) and these (hollow), with 95% intervals",
                axis="percent",
                kinds=("own test images", "external images"),
            )
    called = trust_tables.predicted_table(doc, marked(selection))
    if len(called):
        show_table(called)
    findings = trust_tables.findings_table(doc, titles(selection), target)
    if len(findings):
        with st.expander("What these images show by the set's own record", icon=":material/list:"):
            st.dataframe(findings, hide_index=True, alt="Images by recorded finding")
    skipped = [
        {"image_id": entry["path"], "reason": entry["reason"]} for entry in doc.get("skipped") or []
    ]
    show_excluded([*doc["excluded"], *skipped], name)
