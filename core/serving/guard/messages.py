"""What a guard says: why an image is refused, in plain words, and how far one is that passes."""

from __future__ import annotations

import re
from dataclasses import dataclass

from core.formatting import percent
from core.imageio.decode import Decoded

SUBJECTS = {
    "xray": "a frontal chest X-ray",
    "ct": "a chest CT slice",
    "phantom": "a drawn chest phantom",
}
KINDS = {"xray": "an X-ray", "ct": "a CT slice", "phantom": "an X-ray"}
# DICOM PS3.3 C.7.3.1.1.1, the modalities that a person may well have at hand.
MODALITIES = {
    **dict.fromkeys(("CR", "DX", "RG"), "an X-ray"),
    "CT": "computed tomography",
    "MR": "magnetic resonance",
    "US": "ultrasound",
    "IVUS": "ultrasound",
    "PT": "positron emission tomography",
    "NM": "nuclear medicine",
    "MG": "a mammogram",
    "XA": "angiography",
    "RF": "fluoroscopy",
    **dict.fromkeys(("IO", "PX"), "a dental X-ray"),
    "BMD": "bone densitometry",
    **dict.fromkeys(("ES", "GM", "XC"), "a photograph or endoscopy"),
    **dict.fromkeys(("OP", "OPT", "OCT"), "an image of the eye"),
    "SM": "microscopy",
    "DOC": "a document",
    "RTIMAGE": "an image from radiotherapy",
}
# What these name is refused; what stands in none of them is left to the pixels.
_LATERAL = re.compile(r"^(LL|RL|L|LAT|LATERAL)$|\bLAT(ERAL)?\b(?!.*DECUB)")
_OBLIQUE = re.compile(r"^(RLO|LLO|LAO|RAO|LPO|RPO)$|OBL")
_CHEST = re.compile(r"CHEST|THORAX|LUNG|RIB|HEART|TORSO")
_PARTS = (
    "HAND WRIST FINGER THUMB ARM FOREARM ELBOW HUMERUS SHOULDER CLAVICLE FOOT ANKLE TOE LEG KNEE "
    "PATELLA FEMUR TIBIA THIGH HIP PELVIS SKULL HEAD BRAIN JAW MANDIBLE FACE ORBIT NECK SPINE "
    "CSPINE TSPINE LSPINE SSPINE SACRUM COCCYX ABDOMEN KIDNEY LIVER BREAST TEETH TOOTH EYE "
    "EXTREMITY PROSTATE BLADDER UTERUS"
)
PARTS = frozenset(_PARTS.split())


@dataclass(frozen=True)
class GuardMeasurement:
    """What was measured of one image; the numbers are divided by their bounds.

    features, layout, turned: see core.serving.guard.detector. facts: what its header says that
    speaks against it. blank, noise, colour speak against it too; flat only explains.
    """

    features: float
    layout: float
    turned: float
    facts: tuple[str, ...] = ()
    blank: bool = False
    noise: bool = False
    colour: bool = False
    flat: bool = False

    @property
    def distance(self) -> float:
        return max(self.features, self.layout, self.turned)

    @property
    def plain_reasons(self) -> tuple[str, ...]:
        """Reasons that need no further measurement."""
        reasons = list(self.facts)
        if self.blank:
            reasons.append("it has almost one grey level only")
        elif self.noise:
            reasons.append("it is noise: pixels side by side have little in common")
        if self.colour:
            reasons.append("it is a colour picture")
        return tuple(reasons)

    @property
    def passes(self) -> bool:
        return self.distance <= 1 and not self.plain_reasons

    def reasons(self, fits: str, nearest: str) -> tuple[str, ...]:
        """Why the image is refused, the plainest first.

        fits: what would have to be done for it to pass, "" for nothing; nearest: which of those
        comes nearest all the same.
        """
        reasons = list(self.plain_reasons)
        if fits == "as a negative":
            reasons.append("as a negative it looks like one; invert it")
        elif fits:
            reasons.append(f"{fits} it looks like one; turn it")
        if reasons:
            return tuple(reasons)
        if self.flat:
            reasons.append(
                "most of it is one flat grey level, as on a page, a chart or a screenshot"
            )
        if self.features > 1:
            reasons.append(
                f"its features lie {_times(self.features)} as far from the training images as the "
                "bound"
            )
        elif self.layout > 1:
            reasons.append(
                "its light and dark areas lie elsewhere: they are "
                f"{_times(self.layout)} as far from those of the training images as the bound"
            )
        elif not reasons:
            reasons.append(
                f"its light and dark areas are more like those of the training images {nearest} "
                "than as it is"
            )
        return tuple(reasons)


def explain_facts(decoded: Decoded, modality: str) -> tuple[str, ...]:
    """What the DICOM header says that speaks against the image; () without such a header.

    Only words of the lists above are repeated, never a header's own text.
    """
    facts = {key: str(value).strip().upper() for key, value in decoded.facts.items()}
    reasons = []
    wanted = "computed tomography" if modality == "ct" else "an X-ray"
    found = MODALITIES.get(facts.get("Modality", ""), wanted)
    if found != wanted:
        reasons.append(
            f"its header says {found} (Modality {facts['Modality']}), which is not "
            f"{KINDS.get(modality, 'an X-ray')}"
        )
    view = facts.get("ViewPosition", "")
    if modality != "ct" and _LATERAL.search(view):
        reasons.append("its header says a lateral view, which is not frontal")
    elif modality != "ct" and _OBLIQUE.search(view):
        reasons.append("its header says an oblique view, which is not frontal")
    part = facts.get("BodyPartExamined", "")
    named = [word for word in re.findall(r"[A-Z]+", part) if word in PARTS]
    if named and not _CHEST.search(part):
        reasons.append(f"its header says that it shows another part of the body ({named[0]})")
    return tuple(reasons)


def looks_like(subject: str, measured: GuardMeasurement, level: float) -> str:
    """The sentence about an image that passes."""
    return (
        f"It looks like {subject} (distance {measured.distance:.2f} of the 1.0 that "
        f"{percent(level, 0)} of real ones keep)."
    )


def refusal(subject: str, reasons: tuple[str, ...]) -> str:
    """The sentence about an image that is refused."""
    return f"This does not look like {subject}: {'; '.join(reasons)}."


def synthetic_sentence(subject: str, measured: GuardMeasurement) -> str:
    """The sentence about an image that says of itself that it is drawn."""
    verdict = (
        f"it would pass as {subject} too" if measured.passes else f"it does not pass as {subject}"
    )
    return (
        "SYNTHETIC: a drawn phantom, let through as such; by what is measured "
        f"{verdict} (distance {measured.distance:.2f}, 1.0 is the bound)."
    )


def _times(number: float) -> str:
    return f"{number:.1f} times" if number < 100 else "over 100 times"
