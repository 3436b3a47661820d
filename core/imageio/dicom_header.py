"""The words of a DICOM header that may be shown: those on a list, since any other may be a name."""

from __future__ import annotations

import re

from pydicom.dataset import Dataset

OTHER_WORD = "another word, not shown"
# By keyword. A word that is not here could be a name that somebody typed into that field.
_LISTED = {
    "Modality": "CR DX DR RF XA RG PX IO MG CT MR NM PT US OT SC XC ES GM SM OP OPT SEG RTIMAGE "
    "RTDOSE RTPLAN RTSTRUCT SR PR KO ECG HC IVUS BI BMD",
    "PresentationIntentType": "FOR PRESENTATION|FOR PROCESSING",
    "BodyPartExamined": "CHEST THORAX LUNG RIB RIBS STERNUM CLAVICLE SHOULDER ABDOMEN "
    "ABDOMENPELVIS CHESTABDOMEN CHESTABDPELVIS PELVIS HIP SPINE CSPINE TSPINE LSPINE HEAD SKULL "
    "NECK HEART BREAST ARM HAND WRIST ELBOW HUMERUS FOREARM FINGER THUMB LEG KNEE FOOT ANKLE TOE "
    "FEMUR THIGH CALF JAW BRAIN LIVER KIDNEY BLADDER EXTREMITY WHOLEBODY PHANTOM",
    "ViewPosition": "PA AP LL RL LLD RLD LLO RLO LATERAL LAT LLAT RLAT OBL OBLIQUE LORDOTIC XTABLE",
    "BurnedInAnnotation": "YES NO",
}
_WORDS = {
    keyword: frozenset(text.split("|") if "|" in text else text.split())
    for keyword, text in _LISTED.items()
}
_ORIENTATION = re.compile(r"[LRAPHF]{1,3}")


def read_facts(header: Dataset) -> dict[str, str]:
    """What the header says that identifies nobody: only words that are listed here."""
    facts = {}
    for keyword, words in _WORDS.items():
        try:
            value = header.get(keyword)
        except Exception:  # damaged in a way of its own: as good as not there
            continue
        if value:
            value = str(value).strip().upper()
            facts[keyword] = value if value in words else OTHER_WORD
    orientation = _orientation(header)
    if orientation:
        facts["PatientOrientation"] = orientation
    return facts


def _orientation(header: Dataset) -> str:
    r"""Where rows and columns run to, such as L\F; told where it is not how a chest film hangs.

    PS3.3 C.7.6.1.1.1: first the direction of the rows, then that of the columns.
    """
    try:
        row, column = (str(part).strip().upper() for part in header.get("PatientOrientation"))
    except Exception:  # not there, or not two directions
        return ""
    if not (_ORIENTATION.fullmatch(row) and _ORIENTATION.fullmatch(column)):
        return ""
    text = f"{row}\\{column}"
    if column[0] == "H":
        return f"{text} (upside down; read as stored)"
    if row[0] in "HF":
        return f"{text} (lying on its side; read as stored)"
    if row[0] == "R":
        return f"{text} (mirrored; read as stored)"
    return text
