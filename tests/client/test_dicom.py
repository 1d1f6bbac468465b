"""Of a DICOM file only its pixels leave, as a radiologist's screen shows them."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from blindai.client import dicom
from blindai.errors import InvalidInputError

if TYPE_CHECKING:
    from pathlib import Path

pydicom = pytest.importorskip("pydicom")  # the extra `dicom`
image = pytest.importorskip("PIL.Image")  # the extra `pictures`

STORED = np.array([[0, 100, 200], [300, 400, 1000]], np.uint16)


def scan(path: Path, stored: np.ndarray = STORED, **members: Any) -> Path:
    from pydicom.dataset import Dataset, FileMetaDataset

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = pydicom.uid.SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = pydicom.uid.UID("1.2.3")
    dataset = Dataset()
    dataset.file_meta = meta
    dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    dataset.PatientName, dataset.PatientID = "Lovelace^Ada", "secret-number"
    dataset.Rows, dataset.Columns = stored.shape[:2]
    dataset.SamplesPerPixel = stored.shape[2] if stored.ndim == 3 else 1
    dataset.BitsAllocated = dataset.BitsStored = stored.dtype.itemsize * 8
    dataset.HighBit, dataset.PixelRepresentation = dataset.BitsStored - 1, 0
    dataset.PhotometricInterpretation = "MONOCHROME2"
    for name, value in members.items():
        setattr(dataset, name, value)
    dataset.PixelData = stored.tobytes()
    dataset.save_as(path, enforce_file_format=True)
    return path


def shown(path: Path) -> list[list[int]]:
    return [[int(value) for value in row] for row in np.asarray(image.open(io.BytesIO(dicom.picture(path))))]


WINDOW = {"WindowCenter": [200, 5], "WindowWidth": [401, 5]}


@pytest.mark.parametrize(
    ("members", "pixels"),
    [
        ({}, [[0, 26, 51], [76, 102, 255]]),
        (WINDOW, [[0, 64, 128], [192, 255, 255]]),
        ({**WINDOW, "PhotometricInterpretation": "MONOCHROME1"}, [[255, 191, 127], [63, 0, 0]]),
        ({**WINDOW, "RescaleSlope": 2, "RescaleIntercept": -200}, [[0, 0, 128], [255, 255, 255]]),
        ({"WindowCenter": 200, "WindowWidth": 400, "VOILUTFunction": "LINEAR_EXACT"}, [[0, 64, 128], [191, 255, 255]]),
        ({"WindowCenter": 200, "WindowWidth": 400, "VOILUTFunction": "SIGMOID"}, [[30, 69, 128], [186, 225, 255]]),
        ({"WindowCenter": 200, "WindowWidth": 1}, [[0, 0, 255], [255, 255, 255]]),
    ],
    ids=range(7),
)
def test_the_picture_is_what_a_screen_shows(tmp_path: Path, members: dict[str, Any], pixels: list[list[int]]) -> None:
    found = shown(scan(tmp_path / "scan.dcm", **members))
    assert np.abs(np.array(found) - pixels).max() <= 1


def test_nothing_else_of_the_file_is_in_it(tmp_path: Path) -> None:
    sent = dicom.picture(scan(tmp_path / "scan.dcm"))
    assert image.open(io.BytesIO(sent)).info == {}
    assert [sent[start : start + 4] for start in (12, 37)] == [b"IHDR", b"IDAT"]
    assert b"Lovelace" not in sent
    assert b"secret" not in sent


def test_what_is_no_single_grey_picture_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "scan.dcm"
    colour = np.zeros((2, 2, 3), np.uint8)
    scan(path, colour, PhotometricInterpretation="RGB", PlanarConfiguration=0)
    with pytest.raises(InvalidInputError, match="colour"):
        dicom.picture(path)
    with pytest.raises(InvalidInputError, match="window"):
        dicom.picture(scan(path, WindowCenter=1, WindowWidth=0))
    path.write_bytes(b"no DICOM at all")
    with pytest.raises(InvalidInputError, match="InvalidDicomError"):
        dicom.picture(path)
    with pytest.raises(FileNotFoundError):
        dicom.picture(tmp_path / "missing.dcm")
