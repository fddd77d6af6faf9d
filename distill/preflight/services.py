"""Whether what a run reports to is there: trackers and the Hugging Face Hub; nothing is asked over the network."""

from collections.abc import Iterator

from accelerate.tracking import get_available_trackers
from huggingface_hub import get_token, is_offline_mode

from distill.config.schema import TENSORBOARD, Config
from distill.utils.findings import ERROR, OK, WARNING, Finding


def check_trackers(config: Config) -> Iterator[Finding]:
    """Look whether the packages of all trackers are installed: accelerate leaves out the others without a word."""
    installed = {str(tracker) for tracker in get_available_trackers()}
    missing = [name for name in config.trackers if name not in installed]
    if missing:
        packages = " ".join(missing)
        yield Finding(
            ERROR, f"trackers: {', '.join(missing)} not installed; pip install {packages}, or leave out of trackers"
        )
    elif set(config.trackers) - {TENSORBOARD}:
        yield Finding(OK, f"trackers: {', '.join(config.trackers)} installed")


def check_hub(config: Config) -> Iterator[Finding]:
    """Look whether the student could be pushed at the end; if not, the run is not less worth, so that it is warned."""
    repo, later = config.hub.repo, "or push the finished run later by the same command"
    if repo is None:
        return
    if is_offline_mode():
        yield Finding(WARNING, f"hub.repo: HF_HUB_OFFLINE is set, nothing will go to {repo}; unset it, {later}")
    elif get_token() is None:
        yield Finding(WARNING, f"hub.repo: nobody is logged in to push to {repo}; `hf auth login`, {later}")
    else:
        yield Finding(OK, f"hub.repo: {repo} gets student, card and record at the end")
