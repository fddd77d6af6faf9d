"""Whether the device does the precision that is asked for, told before anything is trained."""

from collections.abc import Iterator

from distill.config.schema import AUTO, PRECISIONS, Config
from distill.training.launcher import Launcher
from distill.training.precision import bf16_slowdown, native_precision
from distill.utils.findings import ERROR, OK, WARNING, Finding


def check_precision(config: Config, launcher: Launcher, kept: bool = False) -> Iterator[Finding]:
    """Look whether the device does the precision that is asked for, and at what price.

    Args:
        kept: whether it is the one that the run chose when it began, perhaps on another machine.
    """
    ours, theirs = config.training.mixed_precision, launcher.mixed_precision
    wanted = theirs if ours in (None, AUTO) else ours
    if wanted == "fp16" and not launcher.gpus:
        yield Finding(ERROR, "mixed precision fp16 needs a GPU and none is visible; use bf16 or no, or leave it out")
        return
    if ours not in (None, AUTO) and theirs not in (None, "no", ours):  # "no" is also what a launcher says unasked
        yield Finding(
            WARNING,
            f"launcher: it says mixed precision {theirs}, training.mixed_precision says {ours}, which is used; "
            "make them the same, or training.mixed_precision auto",
        )
    native = native_precision("cuda" if launcher.gpus else "cpu")
    if wanted == "bf16" and native == "no":
        factor = "" if launcher.gpus else f": a product takes {bf16_slowdown():.3g} times as long as in fp32"
        way_out = "the run began in it and keeps it" if kept else "use training.mixed_precision auto or no"
        yield Finding(WARNING, f"training.mixed_precision bf16 is emulated on this device{factor}; {way_out}")
    elif kept and ours in PRECISIONS and ours != native:
        line = (
            f"training.mixed_precision: the run began with {ours} and keeps it; this device alone would take {native}"
        )
        yield Finding(WARNING, line)
    else:
        yield Finding(OK, f"precision: {wanted if wanted in ('bf16', 'fp16') else native if ours == AUTO else 'no'}")
