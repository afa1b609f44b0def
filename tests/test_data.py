"""DATA arguments: every form is read, what is wrong is named all at once, splits never overlap."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ldsnn_compiler.data import Data, DataError, builtins, load_data, load_factory, register_data


def images(count: int, start: int = 0) -> np.ndarray:
    """``count`` different samples ``[count, 2, 3]``."""
    return np.arange(start, start + 6 * count, dtype=np.float32).reshape(count, 2, 3)


def samples(data: Data) -> tuple[set[bytes], set[bytes]]:
    """The contents of both splits."""
    return tuple({s.numpy().tobytes() for s in split[0]} for split in (data.calibration, data.report))  # type: ignore[return-value]


def npz(folder: Path, **arrays: Any) -> str:
    """An .npz of these arrays."""
    path = folder / "data.npz"
    np.savez(path, **arrays)
    return str(path)


def factory(folder: Path, body: str) -> str:
    """``file.py:data`` whose function has this body."""
    path = folder / "mine.py"
    path.write_text(f"import numpy as np\nimport torch\n\n\ndef data():\n    {body}\n")
    return f"{path}:data"


def refusal(spec: str) -> list[str]:
    """What is said about a specification that cannot be used."""
    with pytest.raises(DataError) as caught:
        load_data(spec)
    return [str(p) for p in caught.value.problems]


def test_train_and_test_arrays_are_calibration_and_report(tmp_path: Path) -> None:
    y = np.array([0, 1, 2, 1], np.uint8)
    data = load_data(
        npz(tmp_path, x_train=images(4).astype(np.float64), y_train=y, x_test=images(2, 100), y_test=y[:2], extra=y)
    )
    assert torch.equal(data.calibration[0], torch.from_numpy(images(4)))
    assert data.calibration[0].dtype == torch.float32
    assert data.report[1] is not None and data.report[1].dtype == torch.int64 and data.report[1].tolist() == [0, 1]


def test_half_precision_stays_as_it_is(tmp_path: Path) -> None:
    data = load_data(npz(tmp_path, x=images(20).astype(np.float16)))
    assert data.calibration[0].dtype == data.report[0].dtype == torch.float16
    assert torch.equal(data.calibration[0].float(), torch.from_numpy(images(20)[::5]))


def test_unsplit_arrays_are_split_the_same_way_every_time_and_say_so(tmp_path: Path) -> None:
    spec = npz(tmp_path, x=images(20), y=np.arange(20))
    data, again = load_data(spec), load_data(spec)
    assert data.calibration[1] is not None and data.calibration[1].tolist() == [0, 5, 10, 15]
    assert len(data.report[0]) == 16 and torch.equal(data.report[0], again.report[0])
    assert "no split given" in data.note


def test_equal_samples_of_unsplit_arrays_stay_together(tmp_path: Path) -> None:
    x = np.concatenate([images(10), images(10)[::-1], images(10)])
    data = load_data(npz(tmp_path, x=x))
    calibration, report = samples(data)
    assert calibration.isdisjoint(report) and len(calibration | report) == 10
    assert len(data.calibration[0]) + len(data.report[0]) == 30
    assert data.calibration[1] is None and data.report[1] is None


def test_one_sample_cannot_be_split(tmp_path: Path) -> None:
    assert "two different samples" in refusal(npz(tmp_path, x=np.ones((5, 2), np.float32)))[0]


def test_factory_gives_arrays_or_tensors_with_or_without_labels(tmp_path: Path) -> None:
    body = "return {'calibration': (np.zeros((3, 2), np.float32), None), 'report': (torch.ones(2, 2), [1, 0])}"
    data = load_data(factory(tmp_path, body))
    assert data.calibration[1] is None and data.report[1] is not None and data.report[1].tolist() == [1, 0]


def test_factory_may_import_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "neighbour_of_data.py").write_text("VALUE = 3\n")
    (tmp_path / "mine.py").write_text("from neighbour_of_data import VALUE\n\n\ndef data():\n    return VALUE\n")
    assert load_factory(f"{tmp_path / 'mine.py'}:data")() == 3


def test_the_digits_are_built_in() -> None:
    data = load_data("digits")
    assert data.calibration[0].shape[1:] == (1, 8, 8) and len(data.report[0]) > 500
    calibration, report = samples(data)
    assert calibration.isdisjoint(report)


def test_names_of_data_sets_do_not_clash() -> None:
    assert "digits" in builtins()
    with pytest.raises(DataError, match="registered already"):
        register_data("digits", dict)


def test_all_that_is_wrong_with_a_factory_is_named_at_once(tmp_path: Path) -> None:
    body = (
        "return {'calibration': (np.full((3, 2), np.nan, np.float32), [0, 1]),"
        " 'report': (np.zeros((2, 2), np.uint8), [0.5, 1.0]), 'tests': None}"
    )
    found = "\n".join(refusal(factory(tmp_path, body)))
    for part in ("unknown entry", "3 of 3 samples hold NaN", "2 labels for 3 samples", "uint8", "integer class"):
        assert part in found


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return {'report': (torch.zeros(2, 2), None)}", "dict.calibration: missing"),
        ("return {'calibration': torch.zeros(3, 2), 'report': (torch.ones(2, 2), None)}", "is not a pair"),
        ("return {'calibration': (None, None), 'report': (torch.ones(2, 2), None)}", "x: is None"),
        ("return {'calibration': (np.array(['a', 'b']), None), 'report': (torch.ones(2, 2), None)}", "is no number"),
        ("return {'calibration': (torch.zeros(2), None), 'report': (torch.ones(2, 2), None)}", "expected samples"),
        ("return {'calibration': (torch.zeros(3, 4), None), 'report': (torch.ones(2, 2), None)}", "differ in shape"),
        ("return {'calibration': (torch.zeros(3, 2), None), 'report': (torch.zeros(2, 2), None)}", "2 of 2 report"),
        ("return {'calibration': (torch.zeros(1, 2), [-1]), 'report': (torch.ones(2, 2), None)}", "negative"),
        ("return {'calibration': (torch.zeros(1, 2), [[1]]), 'report': (torch.ones(2, 2), None)}", r"expected [N]"),
        ("return {'calibration': (torch.zeros(1, 2), ['a']), 'report': (torch.ones(2, 2), None)}", "y: dtype <U1"),
        ("return [1]", "gives a list"),
        ("raise KeyError('sun')", "fails when called, KeyError"),
    ],
)
def test_a_factory_that_gives_something_else_is_refused(tmp_path: Path, body: str, said: str) -> None:
    assert said in "\n".join(refusal(factory(tmp_path, body)))


def test_files_that_cannot_be_read_are_refused_in_one_line(tmp_path: Path) -> None:
    pickled = np.array([{"a": 1}], dtype=object)
    np.savez(tmp_path / "objects.npz", x=pickled)
    (tmp_path / "text.npz").write_text("hello")
    (tmp_path / "empty.npz").write_bytes(b"")
    np.save(tmp_path / "one.npy", images(2))
    (tmp_path / "one.npy").rename(tmp_path / "one.npz")
    whole = Path(npz(tmp_path, x=images(50)))
    (tmp_path / "cut.npz").write_bytes(whole.read_bytes()[:300])
    for name in ("objects", "text", "empty", "one", "cut"):
        found = refusal(str(tmp_path / f"{name}.npz"))
        assert len(found) == 1 and "cannot be read" in found[0] and "\n" not in found[0]


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"x_train": images(2)}, "lacks x_test, holds x_train"),
        ({"y": np.arange(2)}, "lacks x_train, x_test, holds y"),
        ({"x": images(2), "x_test": images(2)}, "holds both x and x_test"),
        ({"x": images(3), "y": np.arange(2)}, "2 labels for 3 samples"),
    ],
)
def test_incomplete_npz_is_refused(tmp_path: Path, arrays: dict[str, Any], said: str) -> None:
    assert said in refusal(npz(tmp_path, **arrays))[0]


@pytest.mark.parametrize("spec", ["nothing", "absent.npz", "absent.py:data"])
def test_what_is_not_there_is_refused(spec: str) -> None:
    assert len(refusal(spec)) == 1


def test_a_file_without_the_factory_or_with_an_error_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("1 / 0\n")
    (tmp_path / "none.py").write_text("data = 3\n")
    assert "fails when imported, ZeroDivisionError" in refusal(f"{tmp_path / 'bad.py'}:data")[0]
    assert "no such callable" in refusal(f"{tmp_path / 'none.py'}:data")[0]
