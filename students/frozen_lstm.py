"""The baseline without distilled layers: a frozen BERT and a classifier on a bidirectional LSTM that reads it."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPooling

from .attention.base import SelfAttention
from .attention.softmax import SoftmaxAttention
from .configuration import StudentConfig
from .modeling import StudentForSequenceClassification, StudentModel


@strict
class FrozenLSTMConfig(StudentConfig):
    """A student whose layers are the teacher's, unchanged; ``num_features`` is the LSTM's size per direction, 256."""

    model_type = "frozen_bert_lstm"
    attentions: ClassVar[Mapping[str, type[SelfAttention]]] = {"lstm": SoftmaxAttention}
    reads_first_token: ClassVar[bool] = False

    attention: str | list[str] = "lstm"

    def __post_init__(self, **kwargs: Any) -> None:
        if self.num_features is None:
            self.num_features = 256
        if isinstance(self.num_features, list):
            raise ValueError(f"num_features {self.num_features}: the LSTM has one size")
        super().__post_init__(**kwargs)

    @property
    def uses_num_features(self) -> bool:
        return True

    def attention_of_layer(self, layer: int) -> str:
        return "softmax"

    def head_flops(self, length: int) -> int:
        """Operations of the LSTM, four gates in each direction, and of the classifier; a multiply-add counts 2."""
        size = self.features_per_head
        return 16 * length * size * (self.hidden_size + size) + 4 * size * int(self.num_labels or 0)


class FrozenLSTMForSequenceClassification(StudentForSequenceClassification):
    """Classifier on the last states of an LSTM in both directions, which reads a BERT that never changes.

    The encoder stays in eval mode, so that its output for a text is always the same, and gets no gradient.
    """

    config_class = FrozenLSTMConfig
    auto_map: ClassVar[Mapping[str, str]] = {
        "AutoConfig": "frozen_lstm.FrozenLSTMConfig",
        "AutoModelForSequenceClassification": "frozen_lstm.FrozenLSTMForSequenceClassification",
    }
    # What the stages of a distillation can match: see SelfAttention.
    complexity = "quadratic"  # that of the BERT below
    has_attention_map = False
    has_context = False
    uses_num_features = True
    has_random_features = False
    is_softmax = False
    features_per_layer = False
    trains_layers = False
    estimates_softmax = False
    projections: ClassVar[tuple[str, ...]] = ()
    options: ClassVar[Mapping[str, Any]] = {}

    @staticmethod
    def why_not_exact(options: Mapping[str, Any]) -> str:
        """Return why there are no estimates to replace: the layers are the teacher's own."""
        return "is the teacher's own, exact in texts of every length"

    def __init__(self, config: StudentConfig) -> None:
        super().__init__(config)
        size = config.features_per_head
        self.bert = StudentModel(config, add_pooling_layer=False)
        self.lstm = nn.LSTM(config.hidden_size, size, batch_first=True, bidirectional=True)
        # Named unlike the teacher's, whose weights mean nothing here: a copy by name must not find them.
        self.classifier = nn.Sequential(nn.Linear(2 * size, self.num_labels))
        self.post_init()
        self.train(self.training)

    def train(self, mode: bool = True) -> "FrozenLSTMForSequenceClassification":
        super().train(mode)
        self.bert.eval()
        return self

    def summarise(self, outputs: BaseModelOutputWithPooling, attention_mask: Tensor | None) -> Tensor:
        """Return the last states (B, 2h) of both directions, each at the end of the real tokens that it reads."""
        states = outputs.last_hidden_state
        assert states is not None
        states = states.detach()
        if attention_mask is None:
            lengths = torch.full(states.shape[:1], states.shape[1])
        else:
            real = attention_mask.bool()
            states = states.gather(1, (~real).long().argsort(stable=True).unsqueeze(-1).expand_as(states))
            lengths = real.sum(-1).clamp(min=1).cpu()
        packed = nn.utils.rnn.pack_padded_sequence(states, lengths, batch_first=True, enforce_sorted=False)
        _, (last, _) = self.lstm(packed)
        return last.transpose(0, 1).flatten(1)

    def feature_parameters(self) -> list[nn.Parameter]:
        """All that is trained; it starts untrained and bears a higher learning rate."""
        return [*self.lstm.parameters(), *self.classifier.parameters()]

    def frozen_parameters(self) -> list[nn.Parameter]:
        """What no stage may train."""
        return list(self.bert.parameters())
