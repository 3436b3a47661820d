"""Tables beside a data set: found, matched by path, joined without overwriting what is known."""

import pytest
from PIL import Image

from core.datasets.extra_tables import find_extra_table, read_clinical, read_readings
from core.datasets.folder import load_table
from core.datasets.registry import DatasetError, describe_folder


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "xrays"
    for name in ("covid/a.png", "covid/b.png", "normal/c.png"):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (64, 64), 90).save(file)
    return folder


def write(folder, name, text):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)


def test_tables_lie_in_the_folder_or_in_one_of_its_name_with_extra(root):
    assert find_extra_table(root, "clinical.csv") is None
    assert read_clinical(root) is None and read_readings(root) is None
    beside = root.with_name("xrays-extra")
    write(beside, "clinical.csv", "path,sex\ncovid/a.png,F\n")
    assert find_extra_table(root, "clinical.csv") == (beside / "clinical.csv").resolve()
    write(root, "clinical.csv", "path,sex\ncovid/a.png,M\n")
    assert read_clinical(root).loc["covid/a", "sex"] == "M", "the folder's own comes first"


def test_facts_are_matched_by_path_whatever_the_extension_and_fill_blanks_only(root):
    write(root, "metadata.csv", "path,label,view\ncovid/a.png,covid,PA\ncovid/b.png,covid,\n"
          "normal/c.png,normal,\n")  # fmt: skip
    write(root.with_name("xrays-extra"), "clinical.csv",
          "path,age_years,view,split\ncovid/a.jpg,61,AP,test\ncovid/b.jpeg,,AP,\n"
          "other/x.png,9,PA,\n")  # fmt: skip
    table = load_table(describe_folder(root), root).set_index("image_id")
    assert table["view"].to_dict() == {"covid/a": "PA", "covid/b": "AP", "normal/c": ""}
    assert table["age_years"].to_dict() == {"covid/a": "61", "covid/b": "", "normal/c": ""}
    assert "split" not in table.columns, "a column of the table's own is not taken from there"


def test_a_label_column_of_clinical_facts_changes_no_label(root):
    write(root, "clinical.csv", "path,label,patient_id\ncovid/a.png,normal,p1\n")
    table = load_table(describe_folder(root), root).set_index("image_id")
    assert table.loc["covid/a", "label"] == "covid"
    assert table.loc["covid/a", "patient_id"] == "image:covid/a"


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("clinical.csv", "file,sex\na.png,F\n", "has no column 'path'"),
        ("readers.csv", "path,reader\na.png,R\n", "expected path,reader,reading, received"),
        ("clinical.csv", "path,sex\na.png,F\na.jpg,M\n", "names a twice"),
    ],
)
def test_a_table_that_cannot_be_used_is_one_sentence(root, name, text, says):
    write(root, name, text)
    with pytest.raises(DatasetError) as caught:
        (read_clinical if name == "clinical.csv" else read_readings)(root)
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_an_image_may_be_read_by_several_readers(root):
    write(root, "readers.csv", "path,reader,reading\ncovid/a.png,R1,Normal\ncovid/a.png,R2,x\n")
    found = read_readings(root)
    assert list(found.columns) == ["reader", "reading"]
    assert found.loc["covid/a", "reader"].tolist() == ["R1", "R2"]
