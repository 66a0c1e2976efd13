"""What is said of an engine that does not run a model."""

import sys
from pathlib import Path

import pytest

from worker.engines import loading
from worker.engines.checks import summary
from worker.engines.engine_file import read_whole
from worker.model_spec import InputRule, ModelError, ModelFile, ModelSpec

OPENVINO_READS = """\
Exception from src/inference/src/cpp/core.cpp:105:
Check 'res.status == pugi::status_ok' failed at src/frontends/ir/src/input_model.cpp:219:
Error parsing start element tag at offset 1527


"""
OPENVINO_RESHAPES = """\
Check 'TRShape::merge_into(output_shape, input_shapes[1], autob)' failed at src/eltwise.hpp:26:
While validating node 'opset1::Multiply Multiply_4' with friendly_name 'Multiply_4':
Argument shapes are inconsistent.
"""
OPENVINO_CONVERTS = """\
Exception from src/inference/src/cpp/core.cpp:84:
Check 'false' failed at src/frontends/common_translators/src/unconverted_ops_report.cpp:151:
FrontEnd API failed with OpConversionFailure:
Model wasn't fully converted.
Summary:
-- No conversion rule found for operations: Betainc, Frob
To facilitate the conversion of unsupported operations, refer to the documentation
"""
LITERT_CONVERTS = """\
Could not translate MLIR to FlatBuffer./tmp/x.py:19:1: error: 'tf.AsString' op is neither
<unknown>:0: error: failed while converting: 'main':
Some ops are not supported by the native TFLite runtime. See instructions: https://example
TF Select ops: AsString, StringLength
Details:
\ttf.AsString(tensor<?x4xf32>) -> (tensor<?x4x!tf_type.string>) : {device = ""}
Custom ops: Betainc
}) {tf.entry_function = {control_outputs = ""} : () -> ()
"""
KERAS_LACKS_A_CLASS = """\
<class 'Functional'> could not be deserialized properly. Please ensure that components that are
Python object instances are explicitly deserialized.

config={'module': 'keras.src.models.functional', 'class_name': 'Functional', 'config': {}}.

Exception encountered: Could not locate class 'Mine'. Full object config: {'class_name': 'Mine'}"""
KERAS_LACKS_A_KEYWORD = """\
<class 'Functional'> could not be deserialized properly. Please ensure that components that are
Python object instances are explicitly deserialized.

Exception encountered: <class 'Conv2D'> could not be deserialized properly.

config={'module': 'keras.layers', 'class_name': 'Conv2D', 'config': {'winograd': True}}.

Exception encountered: Unrecognized keyword arguments passed to Conv2D: {'winograd': True}"""


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (KERAS_LACKS_A_CLASS, "Could not locate class 'Mine'."),
        (
            KERAS_LACKS_A_KEYWORD,
            "Unrecognized keyword arguments passed to Conv2D: {'winograd': True}",
        ),
        (OPENVINO_READS, "Error parsing start element tag at offset 1527"),
        (OPENVINO_RESHAPES, "Argument shapes are inconsistent."),
        (OPENVINO_CONVERTS, "it has no operation for Betainc, Frob"),
        (LITERT_CONVERTS, "it has no operation for AsString, StringLength, Betainc"),
        ("\n  the first:\nof two lines", "the first:"),
        ("Exception from src/a.cpp:1:\n", "RuntimeError"),
        ("", "RuntimeError"),
    ],
)
def test_the_line_that_tells_most_is_shown(said: str, told: str) -> None:
    assert summary(RuntimeError(said)) == told


@pytest.mark.parametrize(
    ("engine", "suffix", "module"),
    [
        ("litert", ".tflite", "ai_edge_litert.interpreter"),
        ("openvino", ".xml", "openvino"),
    ],
)
def test_an_engine_that_is_broken_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str, suffix: str, module: str
) -> None:
    path = tmp_path / f"model{suffix}"
    path.write_bytes(b"a model")
    spec = ModelSpec.model_validate(
        {
            "name": "small",
            "version": "1",
            "engine": engine,
            "origin": ModelFile(path=path),
            "labels": ("a",),
            "input": InputRule(width=1, height=1),
        }
    )
    monkeypatch.setattr(loading, "require", lambda _: None)
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, f"worker.engines.{engine}", raising=False)
    with pytest.raises(ModelError, match=rf"the engine {engine} cannot be imported: .*{module}"):
        loading.load_unchecked(spec, threads=1, cache_dir=tmp_path)


def test_a_model_of_openvino_without_its_weights_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "model.xml"
    path.write_text('<net><layer name="weights" type="Const" /></net>')
    with pytest.raises(ModelError, match=r"model\.xml: there is no model\.bin beside it"):
        read_whole(path)
    path.write_text('<net><layer name="mean" type="ReduceMean" /></net>')
    assert read_whole(path).weights is not None  # it has none to read
