"""Which teacher layer each student layer is copied from and compared with."""

from collections.abc import Sequence
from itertools import pairwise

from .configuration import check_choice

LAYER_MAPS = ("even", "first", "last")


def resolve_layer_map(layer_map: str | Sequence[int], num_student_layers: int, num_teacher_layers: int) -> list[int]:
    """Return one teacher layer, counted from 0, per student layer.

    ``even`` takes floor(i T / S) for student layer i of S and T teacher layers (6 to 3: 0, 2, 4), ``first`` the lowest
    S, ``last`` the highest S; a list is checked and returned. Raises ValueError where that is not possible.
    """
    if num_student_layers < 1:
        raise ValueError(f"the student needs at least 1 layer, got num_layers {num_student_layers}")
    if num_student_layers > num_teacher_layers:
        raise ValueError(f"num_layers {num_student_layers} is above the teacher's {num_teacher_layers}")
    if not isinstance(layer_map, str):
        return _checked(list(layer_map), num_student_layers, num_teacher_layers)
    check_choice("layer map", layer_map, LAYER_MAPS)
    if layer_map == "even":
        return [
            student_layer * num_teacher_layers // num_student_layers for student_layer in range(num_student_layers)
        ]
    start = 0 if layer_map == "first" else num_teacher_layers - num_student_layers
    return list(range(start, start + num_student_layers))


def _checked(layers: list[int], num_student_layers: int, num_teacher_layers: int) -> list[int]:
    if any(type(layer) is not int for layer in layers):
        raise ValueError(f"layer map {layers} must hold whole numbers")
    if len(layers) != num_student_layers:
        raise ValueError(f"layer map {layers} names {len(layers)} layers, the student has {num_student_layers}")
    if not all(0 <= layer < num_teacher_layers for layer in layers):
        raise ValueError(f"layer map {layers} leaves the teacher's layers 0 to {num_teacher_layers - 1}")
    if any(later <= earlier for earlier, later in pairwise(layers)):
        raise ValueError(f"layer map {layers} must be strictly increasing")
    return layers
