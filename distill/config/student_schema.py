"""The section `student` of a configuration."""

from dataclasses import dataclass, field

FIT = "fit"
"""Instead of a mechanism: to be found for every layer."""


@dataclass(frozen=True)
class StudentSettings:
    """The student: fewer layers of the teacher, with another attention mechanism."""

    attention: str | list[str] = "performer"
    """Attention mechanism, or a list with one per layer; students/README.md compares them. fit: found for every layer,
    by short runs of single blocks. lstm: frozen layers under an LSTM, a baseline."""
    fit_attentions: list[str] = field(
        default_factory=lambda: ["t2r", "hedgehog", "performer", "luna_kernel", "taylor", "abc"]
    )
    """Mechanisms that attention fit tries."""
    fit_fidelity: float = 0.9
    """Share of the variance of a block's output that a mechanism has to explain, on held-out train, to be taken: the
    fastest that does (of those about as fast the one that explains most), or else the one that explains most."""
    num_layers: int = 3
    """Number of layers."""
    layer_map: str | list[int] = "even"
    """Teacher layers to start from: even (evenly spaced), first, last, importance (those whose removal changes the
    teacher's decisions most) or a list such as [0, 2, 4]."""
    num_features: int | list[int] | None = None
    """Features, landmarks or slots per head, or a list with one number per layer; null: the mechanism's default
    (performer: d ln d)."""
    attention_options: dict[str, bool | int | float | str] = field(default_factory=dict)
    """Options of the mechanism, such as {window: 64}; students/README.md lists them. Of several each takes its own."""
    features: str = "fixed"
    """How random features are drawn: fixed (once), redrawn (again every redraw_interval steps) or learned (a
    trained matrix per head)."""
    exact_up_to: int = 0
    """Compute exact attention in texts of at most this many tokens and the mechanism's estimate of it in longer
    ones; 0: never exact."""
    redraw_interval: int = 1000
    """Optimizer steps between two draws of redrawn features; the last fifth of a stage draws none."""
    initial_temperature: float | str = "calibrated"
    """Initial value of the learnable temperature per head; calibrated: measured on the copied queries and keys
    (performer, scatterbrain, rfa; otherwise 1)."""
    softmax_layers: list[int] = field(default_factory=list)
    """Student layers that keep softmax attention; -1: the last, where it is linear too, since the classifier reads
    one token."""
    checkpoint: str | None = None
    """BERT encoder, Hub name or folder, that the student is made of, with its own tokenizer; any sequence classifier
    may then be the teacher, of which decisions and the token that its head reads are matched. Or the folder of a
    student of the teacher's encoder (configs/general.yaml), whose layers are taken. null: the teacher."""
    hidden_size: int | None = None
    """Width of the hidden states; null, here and below: that of the model that the student is made of."""
    intermediate_size: int | list[int] | None = None
    """Feed-forward units, or a list with one number per layer."""
    num_heads: int | list[int] | None = None
    """Attention heads, each as wide as in that model, or a list with one number per layer."""
    target_speedup: float | None = None
    """Wanted speed, in times the teacher's at one text: of the shapes that reach it here the one is taken that is
    nearest to the teacher on held-out train after short runs, whatever num_layers says. null: the shape is given."""
    target_length: int | None = None
    """Tokens of that text, at most data.max_length; null: the median of the validation texts."""

    @property
    def attention_name(self) -> str:
        """What the mechanism, or one for every layer, is called in a sentence."""
        return self.attention if isinstance(self.attention, str) else "+".join(self.attention)
