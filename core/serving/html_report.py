"""A report to hand over: one self-contained HTML page about one image.

The page asks nothing of anywhere (images are data URIs, the style is inline, there is no script,
and its Content-Security-Policy allows nothing else) and prints on A4. What would tell who the
patient is stands in it only where it was typed in.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from core.datasets.phantom.generate import NOTICE
from core.errors import UserError
from core.formatting import interval_text, percent
from core.imageio.decode import Decoded
from core.models.names import is_control
from core.reporting.answer_reliability import agreement_sentence, answer_reliability, votes
from core.reporting.scorecard import scorecard
from core.reporting.scorecard.base import FAILED, Check
from core.reporting.templating import open_templates
from core.runs.artifacts import MODEL_FILES, ArtifactError, load_metrics
from core.runs.run import Run
from core.serving.guard.detector import Guard
from core.serving.html_report_images import draw_image, draw_maps, draw_scale, titles_without_map
from core.serving.predict import (
    ImagePrediction,
    ModelPrediction,
    conformal_promise,
    conformal_text,
)

TEMPLATES = Path(__file__).parent / "templates"
RESEARCH_ONLY = "Research use, not for diagnosis"
MAX_TYPED, MAX_NOTE = 200, 2000  # characters
NO_GUARD = (
    "Not known whether this looks like what the run learned from: no guard of the run looked at "
    "it, and its models give a class to any picture."
)
LIMITS = (
    "An answer is no finding: a model gives one of its classes to any picture, and knows no other "
    "disease.",
    "How often answers are right was measured on the test images of the run's data set. Images "
    "from elsewhere, other machines and other patients can do worse.",
    "A heat map shows where in the picture a score comes from, coarsely; that is not necessarily "
    "where the disease is.",
    "The training images that are most alike are alike to the model; they need not show the same "
    "disease.",
)
PREDICTED_WITH = {"openvino": "OpenVINO", "numpy": "NumPy", "pillow": "Pillow"}


class ReportError(UserError):
    """A report that cannot be made; the message is one plain sentence."""


@dataclass(frozen=True)
class ReportImage:
    """The image that a report is about.

    name: the file's, which may hold a patient's name and is left out unless asked for. sha256: of
    the file as it came, "" of an image that never was one. label: the class that its source gives
    it, None where that is not known.
    """

    name: str
    decoded: Decoded
    sha256: str
    label: str | None = None


@dataclass(frozen=True)
class ReportOptions:
    """What whoever makes a report adds and wants to see.

    typed: a reference or name, note: words of their own; both only where typed in. created: now
    where None. even_if_refused: of an image that the guard refused, show the predictions all the
    same, marked. show_name: the file's name too.
    """

    typed: str = ""
    note: str = ""
    created: datetime | None = None
    even_if_refused: bool = False
    show_name: bool = False


def build_report(
    run: Run,
    image: ReportImage,
    prediction: ImagePrediction,
    options: ReportOptions = ReportOptions(),
    *,
    guard: Guard | None = None,
    occlusion: Mapping[str, np.ndarray] | None = None,
    checks: Sequence[Check] | None = None,
) -> str:
    """The report as one HTML page.

    guard: the run's, to say whose features were compared. occlusion: model -> class maps (h, w, C)
    of models that give none themselves. checks: the run's scorecard where it was computed already.

    Raises ReportError where typed words are longer than MAX_TYPED or MAX_NOTE characters.
    """
    created = (options.created or datetime.now(UTC)).astimezone(UTC)
    hidden = prediction.refused and not options.even_if_refused
    shown = () if hidden else prediction.predictions
    template = open_templates(TEMPLATES, autoescape=True).get_template("report.html")
    css = (TEMPLATES / "report.css").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    return template.render(
        css=Markup(css),
        css_hash=f"sha256-{digest}",
        research_only=RESEARCH_ONLY,
        created=created.strftime("%Y-%m-%d %H:%M:%S UTC"),
        run=run.name,
        data=str(run.info["dataset"].get("title") or run.info["dataset"]["name"]),
        typed=clean_typed(options.typed, MAX_TYPED, "reference"),
        note=clean_typed(options.note, MAX_NOTE, "note"),
        refused=prediction.refused,
        hidden=hidden,
        judgement=prediction.judgement,
        no_guard=prediction.problems.get("Guard", NO_GUARD),
        synthetic=NOTICE if image.decoded.synthetic else "",
        means_nothing=run.synthetic and not image.decoded.synthetic,
        label=image.label,
        picture=draw_image(image.decoded),
        problems=[text for title, text in prediction.problems.items() if title != "Guard"],
        agreement="" if hidden else agreement_sentence(votes(prediction.predictions)),
        answers=[_result(run, prediction.class_names, own) for own in shown],
        maps=[] if hidden else draw_maps(image.decoded, prediction, occlusion or {}),
        unmapped=[] if hidden else titles_without_map(prediction, occlusion or {}),
        scale=draw_scale(),
        neighbours=() if hidden else prediction.neighbours,
        neighbours_by=run.title(guard.model) if guard else "",
        promise=_promise(run, prediction),
        **_pitfalls(run, checks),
        identity=[
            ("The picture", _image_rows(image, options.show_name)),
            ("The run", _run_rows(run)),
            *(
                (f"Model: {run.title(name)}", _model_rows(run, prediction, name))
                for name in run.served
            ),
        ],
        limits=[*LIMITS, *map(str, run.info["dataset"].get("caveats") or [])],
    )


def report_file_name(run: Run, created: datetime) -> str:
    """A name for the report that tells the run and the time, and nothing of the image."""
    return f"report-{run.name}-{created.astimezone(UTC):%Y%m%dT%H%M%SZ}.html"


def clean_typed(text: str, longest: int, what: str) -> str:
    """Typed words without control characters (line ends stay) and without blanks around them."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    clean = "".join(c for c in lines if c == "\n" or unicodedata.category(c) not in ("Cc", "Cs"))
    clean = clean.strip()
    if len(clean) > longest:
        raise ReportError(
            f"A report's {what} has at most {longest:,} characters. Received: {len(clean):,}. "
            "Shorten it."
        )
    return clean


# ------------------------------------------------------------------------------- results


def _result(run: Run, names: Sequence[str], own: ModelPrediction) -> dict[str, Any]:
    top = names[int(own.shares.argmax())]
    return {
        "title": own.title,
        "members": [run.title(member) for member in own.members],
        "control": is_control(own.model),
        "predicted": own.predicted,
        "share": percent(own.confidence),
        "calibrated": own.calibrated is not None,
        "other_top": top if top != own.predicted else "",
        "bars": [
            {
                "name": name,
                "text": percent(float(share)),
                "width": f"{100 * float(share):.2f}",
                "said": name == own.predicted,
            }
            for name, share in zip(names, own.shares, strict=True)
        ],
        "set": conformal_text(own.conformal_set, names),
        "tested": _tested(run, own, names),
    }


def _tested(run: Run, own: ModelPrediction, names: Sequence[str]) -> list[str]:
    """How reliable the prediction is by the test split, in sentences."""
    if own.model not in run.models:
        return ["Not measured: the run has no figures for it."]
    try:
        tested = answer_reliability(load_metrics(run, own.model), own.predicted, names)
    except ArtifactError as error:
        return [str(error)]
    return [
        f"Of the {own.predicted} images of the test it finds "
        f"{_rate(tested, 'sensitivity', 'n_true')}.",
        f"Of its answers {own.predicted}, right are {_rate(tested, 'precision', 'n_predicted')}.",
    ]


def _rate(tested: Mapping[str, Any], key: str, n_key: str) -> str:
    if tested[key] is None:
        return "a share that no test image tells"
    interval = interval_text(tested[f"{key}_interval"])
    return f"{percent(tested[key])} ({interval}; n = {tested[n_key]})"


def _promise(run: Run, prediction: ImagePrediction) -> str:
    """What the sets promise, once: it is the same for all models that have them."""
    return next(
        filter(None, (conformal_promise(run, own.model) for own in prediction.predictions)), ""
    )


def _pitfalls(run: Run, checks: Sequence[Check] | None) -> dict[str, Any]:
    """What the run's scorecard finds wrong, one line each; a sentence where it cannot be read."""
    try:
        checks = scorecard.build_scorecard(run) if checks is None else checks
    except ArtifactError as error:
        return {"scorecard": str(error), "faults": []}
    failed = [check for check in checks if check.status == FAILED]
    undone = sum(check.status == scorecard.NOT_DONE for check in checks)
    return {
        "scorecard": f"The run fails {len(failed)} of {len(checks)} checks for known pitfalls of "
        f"such models; {undone} {'was' if undone == 1 else 'were'} not done.",
        "faults": [(check.title, scorecard.fault_text(run, check)) for check in failed],
    }


# ------------------------------------------------------------------------------ identity


def _image_rows(image: ReportImage, show_name: bool) -> list[tuple[str, str]]:
    decoded = image.decoded
    rows = [("File", image.name)] if show_name else []
    rows += [
        ("SHA-256 of the file", image.sha256 or "no file: drawn by the program"),
        ("Size", f"{decoded.width}×{decoded.height} px"),
        ("Format", f"{decoded.format}, {decoded.mode}"),
    ]
    if decoded.facts:
        rows.append(("DICOM says", ", ".join(f"{k} {v}" for k, v in decoded.facts.items())))
    if decoded.tags_read:
        rows.append(("DICOM tags read, no others", ", ".join(decoded.tags_read)))
    return rows


def _run_rows(run: Run) -> list[tuple[str, str]]:
    info, dataset = run.info, run.info["dataset"]
    versions = ", ".join(f"{k} {v}" for k, v in (info.get("versions") or {}).items())
    return [
        ("Name", run.name),
        ("Made", str(info["created"])),
        ("Data set", f"{dataset.get('title') or dataset['name']}, {dataset.get('n', '?')} images"),
        ("Fingerprint of the data", str(dataset.get("fingerprint", "not known"))),
        ("Classes", ", ".join(run.class_names)),
        ("Trained with", versions or "not known"),
        ("Answered with", ", ".join(f"{t} {_version(p)}" for p, t in PREDICTED_WITH.items())),
    ]


def _model_rows(run: Run, prediction: ImagePrediction, name: str) -> list[tuple[str, str]]:
    own, files = prediction.of(name), run.info.get("files") or {}
    rows = [
        (f"SHA-256 of {file}", str(files.get(f"{name}/{file}", "not known")))
        for file in MODEL_FILES
    ]
    if own is not None:
        settings = f"{own.input_size_px} px, {own.precision}, {own.latency_ms:.1f} ms"
        rows.insert(0, ("Asked at", settings))
    return rows


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "of unknown version"
