"""The kinds of files that a student is written to: how one is made of the ONNX file, made int8, and run."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from torch import nn

from distill.data.batching import TokenizedExamples
from distill.export.onnx import OnnxClassifier
from distill.export.onnx_layers import quantize_onnx
from distill.export.openvino import OpenvinoClassifier, convert_to_openvino, quantize_openvino, weights_beside
from distill.utils.errors import UserError

ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
OPENVINO_PACKAGES = ("openvino", "nncf")


@dataclass(frozen=True)
class FileFormat:
    """What a kind of file needs to be written and checked."""

    name: str
    """onnx or openvino, as the command line and the record say it."""
    title: str
    """As it is called in a sentence."""
    suffix: str
    """Of the file that is loaded."""
    convert: Callable[[Path, Path], None]
    """Write the ONNX file that is given first as one of this kind, in fp32."""
    quantize: Callable[[Path, Path, Collection[str], TokenizedExamples], None]
    """The same with int8 weights, but for the layers that are named; texts of train are for scales that are fixed."""
    load: Callable[[Path], nn.Module]
    """Return a classifier with as many threads as torch has at that moment."""
    parts: Callable[[Path], tuple[Path, ...]]
    """All files that belong to one, in the order in which they are moved: the one that is loaded comes last."""


def exports_named(stem: Path) -> list[Path]:
    """Return all files that exports of one name may have left, of every format, in fp32 and in int8.

    ``stem`` is their path without an ending; tokenizer and labels beside them are not among these.
    """
    found: list[Path] = []
    for form in FORMATS.values():
        for middle in ("", ".int8"):
            found += form.parts(stem.with_name(f"{stem.name}{middle}{form.suffix}"))
    return found


def check_packages(name: str) -> None:
    """Refuse to start where a package that writes, quantises or runs a format is not installed."""
    if missing := [package for package in ONNX_PACKAGES if find_spec(package) is None]:
        raise UserError(f"not installed: {', '.join(missing)}; pip install -r requirements.txt")
    if name == "openvino" and (missing := [package for package in OPENVINO_PACKAGES if find_spec(package) is None]):
        raise UserError(f"--format openvino needs {' and '.join(missing)}; pip install {' '.join(OPENVINO_PACKAGES)}")


def runtime_versions(name: str) -> dict[str, str]:
    """Return the version of what runs a format, where that is not torch."""
    package = {"onnx": "onnxruntime", "openvino": "openvino"}.get(name)
    return {package: version(package)} if package else {}


def _copy(onnx_file: Path, output: Path) -> None:
    output.write_bytes(onnx_file.read_bytes())


def _quantize_onnx(onnx_file: Path, output: Path, in_fp32: Collection[str], calibration: TokenizedExamples) -> None:
    """Activations are quantised as they come, whatever the texts of train are."""
    quantize_onnx(onnx_file, output, in_fp32)


def _with_weights(path: Path) -> tuple[Path, ...]:
    return weights_beside(path), path


FORMATS: Mapping[str, FileFormat] = {
    form.name: form
    for form in (
        FileFormat("onnx", "ONNX", ".onnx", _copy, _quantize_onnx, OnnxClassifier, lambda path: (path,)),
        FileFormat(
            "openvino", "OpenVINO", ".xml", convert_to_openvino, quantize_openvino, OpenvinoClassifier, _with_weights
        ),
    )
}
"""ONNX, run by onnxruntime, and OpenVINO: FILE.xml with its weights in FILE.bin."""
