import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from worker.model_directory import open_model
from worker.model_spec import (
    InputRule,
    KerasApplication,
    ModelError,
    ModelFile,
    ModelSpec,
    PixelRule,
)

MINIMAL = """
name = "colours"
version = "1"
file = "model.keras"

[input]
width = 32
height = 24

[output]
labels = "labels.txt"
"""


def directory(path: Path, toml: str = MINIMAL, labels: str = "red\ngreen\n") -> Path:
    (path / "model.toml").write_text(toml)
    (path / "model.keras").touch()
    (path / "labels.txt").write_text(labels)
    return path


def opened(path: Path) -> ModelSpec:
    return open_model(str(path), path / "cache")


def test_minimal_file_has_defaults(tmp_path: Path) -> None:
    spec = opened(directory(tmp_path))
    assert spec == ModelSpec(
        name="colours",
        version="1",
        engine="tensorflow",
        origin=ModelFile(path=tmp_path.resolve() / "model.keras"),
        labels=("red", "green"),
        input=InputRule(
            width=32,
            height=24,
            resize="crop",
            crop_fraction=1.0,
            filter="bicubic",
            padding=(0, 0, 0),
        ),
        pixels=PixelRule(mean=(0, 0, 0), scale=(1, 1, 1), order="rgb"),
        softmax=False,
        default_batch_size=16,
    )


def test_every_key_is_read(tmp_path: Path) -> None:
    toml = """
name = "colours"
version = "2.1"
engine = "tensorflow"
file = "model.keras"
default_batch_size = 4
[input]
width = 32
height = 24
resize = "fit"
filter = "lanczos"
padding = [1, 2, 3]
[pixels]
mean = [1, 2, 3.5]
scale = 128
order = "bgr"
[output]
classes = 3
softmax = true
"""
    spec = opened(directory(tmp_path, toml))
    assert spec.default_batch_size == 4
    assert spec.input.resize == "fit"
    crop = toml.replace('"fit"', '"crop"').replace("padding = [1, 2, 3]", "crop_fraction = 0.5")
    assert opened(directory(tmp_path, crop)).input.crop_fraction == 0.5
    assert spec.input.filter == "lanczos"
    assert spec.input.padding == (1, 2, 3)
    assert spec.pixels == PixelRule(mean=(1, 2, 3.5), scale=(128, 128, 128), order="bgr")
    assert spec.labels == ("class 0", "class 1", "class 2")
    assert spec.softmax


def test_a_file_of_one_engine_needs_that_engine(tmp_path: Path) -> None:
    (tmp_path / "model.tflite").touch()
    toml = MINIMAL.replace("model.keras", "model.tflite")
    with pytest.raises(ModelError, match=r"model\.toml: model\.tflite is run by litert"):
        opened(directory(tmp_path, toml))
    spec = opened(directory(tmp_path, toml.replace("file =", 'engine = "litert"\nfile =')))
    assert spec.engine == "litert"
    assert opened(directory(tmp_path, toml.replace("file =", 'engine = "auto"\nfile ='))).origin


@pytest.mark.parametrize(
    ("says", "engine", "precision", "refusal"),
    [
        ("", "litert", None, None),
        ("", "auto", None, None),
        ('engine = "openvino"', "litert", None, None),
        ('engine = "litert"', "openvino", None, "is run by litert, not by openvino"),
        ('precision = "bf16"', "auto", None, None),
        ('precision = "bf16"', "litert", "float32", None),
        ('precision = "bf16"', "litert", None, "litert does not compute in bf16"),
    ],
)
def test_what_is_asked_for_counts_and_not_what_the_file_says(
    tmp_path: Path, says: str, engine: Any, precision: Any, refusal: str | None
) -> None:
    (tmp_path / "model.tflite").touch()
    toml = MINIMAL.replace('file = "model.keras"', f'file = "model.tflite"\n{says}')
    path = directory(tmp_path, toml)
    if refusal is None:
        spec = open_model(str(path), tmp_path, engine=engine, precision=precision)
        assert spec.engine == engine
    else:
        with pytest.raises(ModelError, match=refusal):
            open_model(str(path), tmp_path, engine=engine, precision=precision)


@pytest.mark.parametrize("source", ["efficientnet-lite0", "keras-applications:MobileNet"])
def test_what_is_asked_for_runs_a_model_without_a_file(tmp_path: Path, source: str) -> None:
    spec = open_model(source, tmp_path, engine="openvino", precision="bf16")
    assert (spec.engine, spec.precision) == ("openvino", "bf16")


def test_card_says_what_the_model_is(tmp_path: Path) -> None:
    spec = opened(directory(tmp_path))
    card = spec.card(8)
    assert (card.name, card.version, card.engine) == ("colours", "1", "tensorflow")
    assert list(card.labels) == ["red", "green"]
    assert (card.input_width, card.input_height, card.max_batch_size) == (32, 24, 8)
    assert spec.card(0).max_batch_size == spec.default_batch_size


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('name = "colours"', "", "name: Field required"),
        ('name = "colours"', 'name = "Colours"', "name: "),
        ('name = "colours"', 'name = "a/b"', "name: "),
        ('name = "colours"', 'name = "a{b}"', "name: "),
        ('name = "colours"', 'name = ".a"', "name: "),
        ('name = "colours"', f'name = "{"a" * 64}"', "name: "),
        ('name = "colours"', 'name = "a\\n"', "name: "),
        ('version = "1"', "version = 1", "version: "),
        ('version = "1"', 'version = "1"\nengine = "torch"', "engine: "),
        ('version = "1"', 'version = "1"\nflavour = 3', "flavour: "),
        ('version = "1"', 'version = "1"\nprecision = "int4"', "precision: "),
        ('version = "1"', 'version = "1"\nprecision = "bf16"', "precision: tensorflow does not"),
        ('version = "1"', 'version = "1"\ndefault_batch_size = 0', "default_batch_size: "),
        ("width = 32", "width = 0", "input.width: "),
        ("width = 32", 'width = "32px"', "input.width: "),
        ("width = 32", "width = 32\ncrop_fraction = 1.5", "input.crop_fraction: "),
        ("width = 32", 'width = 32\nresize = "squash"', "input.resize: "),
        ("width = 32", "width = 32\npadding = [0, 0, 256]", "input.padding.2: "),
        ("width = 32", "width = 32\npadding = [1, 1, 1]", 'input: padding is for resize = "fit"'),
        (
            "width = 32",
            'width = 32\nresize = "stretch"\ncrop_fraction = 0.5',
            'input: crop_fraction is for resize = "crop"',
        ),
        ("[output]", "[pixels]\nscale = 0\n[output]", "pixels.scale.0: "),
        ("[output]", "[pixels]\nscale = 0.00392\n[output]", "pixels.scale: pixels are 0 to 255"),
        ("[output]", "[pixels]\nscale = [58, 57, 0.225]\n[output]", "pixels.scale: pixels are 0"),
        ("[output]", "[pixels]\nmean = [1, 2]\n[output]", "pixels.mean"),
        ("[output]", "[pixels]\nmean = inf\n[output]", "pixels.mean.0: "),
        ('labels = "labels.txt"', "", "output: give either"),
        ('labels = "labels.txt"', 'labels = "labels.txt"\nclasses = 2', "output: give either"),
        ('labels = "labels.txt"', "classes = 0", "output.classes: "),
        ('labels = "labels.txt"', "classes = 1\nsoftmax = true", "output.softmax: softmax of one"),
        ('labels = "labels.txt"', 'labels = "names.txt"', "output.labels: there is no"),
        ('labels = "labels.txt"', 'labels = "../labels.txt"', "output.labels: "),
        ('labels = "labels.txt"', 'labels = "."', "output.labels: "),
        ('file = "model.keras"', 'file = "/etc/passwd"', "file: '/etc/passwd' leads out"),
        ('file = "model.keras"', 'file = "../model.keras"', "file: '../model.keras' leads out"),
        ('file = "model.keras"', 'file = "other.keras"', "file: there is no"),
        ('file = "model.keras"', 'file = "labels.txt"', "file: labels.txt is neither a .keras, "),
        ('file = "model.keras"', "file = ", "line 4"),
    ],
)
def test_wrong_file_is_one_line_that_names_file_and_key(
    tmp_path: Path, old: str, new: str, complaint: str
) -> None:
    (tmp_path / "model").mkdir()
    assert old in MINIMAL
    with pytest.raises(ModelError) as caught:
        opened(directory(tmp_path / "model", MINIMAL.replace(old, new)))
    message = str(caught.value)
    assert "model.toml: " in message
    assert complaint in message
    assert "\n" not in message


def test_all_complaints_are_named_at_once(tmp_path: Path) -> None:
    toml = MINIMAL.replace("width = 32", "width = 0").replace("height = 24", "height = -1")
    with pytest.raises(ModelError, match=r"input\.width: .*; input\.height: "):
        opened(directory(tmp_path, toml))


@pytest.mark.parametrize("suffix", ["h5", "hdf5"])
def test_old_file_of_keras_is_refused_with_the_way_out(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"old.{suffix}").touch()
    way_out = rf'neither .*; keras\.saving\.load_model\("old\.{suffix}"\)\.save\("model\.keras"\)'
    with pytest.raises(ModelError, match=way_out):
        opened(directory(tmp_path, MINIMAL.replace("model.keras", f"old.{suffix}")))


def test_link_that_leads_out_is_refused(tmp_path: Path) -> None:
    (tmp_path / "outside.keras").touch()
    (tmp_path / "model").mkdir()
    path = directory(tmp_path / "model")
    (path / "model.keras").unlink()
    (path / "model.keras").symlink_to(tmp_path / "outside.keras")
    with pytest.raises(ModelError, match="leads out"):
        opened(path)


@pytest.mark.parametrize(
    ("file", "complaint"),
    [
        ("x" * 300, r"file: 'x*': File name too long"),
        ("model\\u0000.keras", "file: .*embedded null"),
        ("circle", "file: .*circle"),
    ],
)
def test_path_that_is_none_is_one_line(tmp_path: Path, file: str, complaint: str) -> None:
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(ModelError, match=r"model\.toml: " + complaint):
        opened(directory(tmp_path, MINIMAL.replace("model.keras", file)))


def test_folder_that_may_not_be_entered_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = directory(tmp_path)

    def refuse(path: Path, **_: object) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    # Whoever is root may enter any.
    monkeypatch.setattr(Path, "exists", refuse)
    with pytest.raises(ModelError, match=r"output\.labels: 'labels\.txt': Permission denied$"):
        opened(path)
    monkeypatch.setattr(Path, "is_dir", refuse)
    with pytest.raises(ModelError, match=r"Permission denied$"):
        opened(path)


def test_home_of_nobody_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"^'~nosuchuser/model': "):
        open_model("~nosuchuser/model", tmp_path)


def test_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    assert opened(directory(tmp_path, "\ufeff" + MINIMAL)).name == "colours"


def test_labels_keep_their_lines(tmp_path: Path) -> None:
    spec = opened(directory(tmp_path, labels="\ufeffred\r\n ice cream \r\ngrün"))
    assert spec.labels == ("red", "ice cream", "grün")


@pytest.mark.parametrize(
    ("labels", "complaint"), [("red\n\nblue\n", "line 2 is empty"), ("", "no labels")]
)
def test_empty_label_is_refused(tmp_path: Path, labels: str, complaint: str) -> None:
    with pytest.raises(ModelError, match=complaint):
        opened(directory(tmp_path, labels=labels))


def test_files_that_are_not_text_are_refused(tmp_path: Path) -> None:
    path = directory(tmp_path)
    (path / "labels.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(ModelError, match=r"labels\.txt: not UTF-8"):
        opened(path)
    (path / "model.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ModelError, match=r"model\.toml: not UTF-8"):
        opened(path)


def test_directory_without_description_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"model\.toml: No such file"):
        opened(tmp_path)


def test_unknown_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="neither"):
        open_model("resnet", tmp_path)


def test_bundled_model_is_known_without_preparing_it(tmp_path: Path) -> None:
    spec = open_model("efficientnet-lite0", tmp_path)
    assert spec.name == "efficientnet-lite0"
    assert len(spec.labels) == 1000
    assert spec.labels[967] == "espresso"
    assert spec.labels[282] == "tiger cat"
    assert list(tmp_path.iterdir()) == []


def test_keras_application_is_known_without_building_it(tmp_path: Path) -> None:
    spec = open_model("keras-applications:EfficientNetB1", tmp_path)
    assert spec.name == "efficientnetb1"
    assert spec.origin == KerasApplication(application="EfficientNetB1", cache_dir=tmp_path)
    assert (spec.input.width, spec.input.height) == (240, 240)
    assert spec.labels[967] == "espresso"


def test_unknown_application_is_refused_with_those_that_are_known(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="MobileNetV2"):
        open_model("keras-applications:MobileNetV9", tmp_path)


def test_opening_a_model_imports_no_tensorflow() -> None:
    program = (
        "import sys, pathlib; from worker.model_directory import open_model;"
        "open_model('efficientnet-lite0', pathlib.Path('.'));"
        "open_model('keras-applications:VGG16', pathlib.Path('.'));"
        "sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
