"""What is kept of a conversion, without an engine."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from worker.engine import Float32Array, UInt8Array
from worker.engines import conversion
from worker.engines.conversion import Converted
from worker.model_spec import (
    InputRule,
    KerasApplication,
    ModelError,
    ModelFile,
    ModelSpec,
    NotNow,
)

SPEC = ModelSpec(
    name="first-pixel",
    version="1",
    origin=ModelFile(path=Path("model.keras")),
    labels=("a",),
    input=InputRule(width=1, height=1),
)


class FirstByte:
    """An engine whose score is the first byte."""

    def warm_up(self, batch_sizes: Sequence[int]) -> None:
        del batch_sizes

    def predict(self, images: UInt8Array) -> Float32Array:
        return images[:, 0, 0, :1].astype(np.float32)


def test_an_engine_is_compared_on_the_images_that_the_reference_is_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = np.array([51, 102, 204], np.uint8).reshape(3, 1, 1, 1).repeat(3, axis=3)
    np.save(tmp_path / conversion.PHOTOS, images)
    np.save(tmp_path / conversion.REFERENCE, np.array([[51], [102], [203]], np.float32))
    converted = Converted(spec=SPEC, path=tmp_path / "model", folder=tmp_path)

    def decode(*_: object, **__: object) -> UInt8Array:
        raise AssertionError("another version may decode otherwise")

    monkeypatch.setattr("worker.agreement.decode", decode)
    assert converted.compared_with(FirstByte(), 2).max_difference == 0
    assert converted.compared_with(FirstByte()).max_difference == 1


def test_a_conversion_that_takes_too_long_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.engines.installed.version_of", lambda _: "1")
    monkeypatch.setattr(conversion, "LIMIT_S", 0.01)
    with pytest.raises(ModelError, match=r"for litert: it took longer than 0.01 s$"):
        conversion.converted(SPEC, "litert", tmp_path)


def test_a_download_may_take_longer_than_a_conversion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = []

    def run(_: object, __: object, limit_s: float | None) -> int:
        limits.append(limit_s)
        return conversion.NOT_NOW

    monkeypatch.setattr("worker.engines.installed.version_of", lambda _: "1")
    monkeypatch.setattr(conversion, "_run", run)
    application = KerasApplication(application="MobileNet", cache_dir=tmp_path)
    for origin in (application, SPEC.origin):
        spec = SPEC.model_copy(update={"origin": origin})
        with pytest.raises(NotNow, match="cannot be converted for litert"):
            conversion.converted(spec, "litert", tmp_path)
    assert limits == [None, conversion.LIMIT_S]
