"""Language models of every mechanism: one that writes from left to right, one that fills in what is masked.

The head is BERT's own, its output matrix that of the word embeddings. Shapes: B batch, N sequence length, D hidden
size, V vocabulary.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import GenerationMixin
from transformers.modeling_outputs import MaskedLMOutput
from transformers.models.bert.modeling_bert import BertOnlyMLMHead
from transformers.utils.generic import ModelOutput, can_return_tuple

from .attention.ops.masking import makes_graph
from .configuration import StudentConfig
from .modeling import StudentModel, StudentPreTrainedModel

IGNORED = (-100, -1)
"""Labels that stand for no token: transformers' own, and that of this project's data."""


class LanguageState(NamedTuple):
    """What a causal model keeps of the tokens that it has read."""

    num_tokens: int
    """How many they were."""
    layers: tuple[Any, ...]
    """The state of every layer, as its mechanism's ``mix_causal`` returned it."""


@dataclass
class CausalOutput(ModelOutput):
    """What a causal language model returns."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    """(B, N, V): of the token that follows each."""
    state: LanguageState | None = None
    hidden_states: tuple[Tensor, ...] | None = None


class StudentLanguageModel(StudentPreTrainedModel):
    """Encoder and head, with the weights of both heads where BERT has those of its own."""

    _tied_weights_keys = {  # noqa: RUF012  # transformers reads a dict here
        "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
        "cls.predictions.decoder.bias": "cls.predictions.bias",
    }
    is_causal: ClassVar[bool]

    def __init__(self, config: StudentConfig) -> None:
        super().__init__(config)
        if config.causal != self.is_causal:
            raise ValueError(f"{type(self).__name__} needs a configuration with causal {self.is_causal}")
        if config.embedding_size is not None:
            raise ValueError(
                f"embedding_size is {config.embedding_size}: the head of a language model shares the word embeddings, "
                "which must be as wide as the layers"
            )
        self.bert = StudentModel(config, add_pooling_layer=False)
        self.cls = BertOnlyMLMHead(config)
        self.post_init()

    def get_output_embeddings(self) -> nn.Module:
        return self.cls.predictions.decoder

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        assert isinstance(new_embeddings, nn.Linear)
        self.cls.predictions.decoder = new_embeddings


class StudentForCausalLM(StudentLanguageModel, GenerationMixin):
    """Predict each token from those before it; ``generate`` goes on from a state, with one token at a time.

    The state of linear mechanisms is as large after a million tokens as after one. Positions start anew where their
    table ends.
    """

    auto_map: ClassVar[Mapping[str, str]] = {
        "AutoConfig": "configuration.StudentConfig",
        "AutoModelForCausalLM": "language_models.StudentForCausalLM",
    }
    is_causal = True
    _is_stateful = True

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        state: LanguageState | None = None,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
        **unused: Any,
    ) -> CausalOutput:
        """Read (B, N) tokens behind those that ``state`` stands for.

        Args:
            attention_mask: (B, N), nonzero at real tokens; pads may stand behind a text, where no token sees them.
            inputs_embeds: (B, N, D), in place of ``input_ids``.
            labels: (B, N), the tokens themselves; the loss is that of each but the first, in nats.

        Returns:
            Logits (B, N, V) of the next token, and the state after these.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give exactly one of input_ids and inputs_embeds")
        refuse_early_pads(attention_mask)
        tokens = input_ids if inputs_embeds is None else inputs_embeds
        assert tokens is not None
        before = 0 if state is None else state.num_tokens
        length = tokens.shape[1]
        positions = torch.arange(before, before + length, device=tokens.device) % self.config.max_position_embeddings
        embedded = self.bert.embeddings(input_ids=input_ids, position_ids=positions[None], inputs_embeds=inputs_embeds)
        layers = [None] * self.config.num_hidden_layers if state is None else state.layers
        hidden_states, kept = self.bert.encoder.look_back(embedded, layers)
        logits = self.cls(hidden_states[-1])
        loss = None if labels is None else token_loss(logits[:, :-1], labels[:, 1:])
        shown = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        return CausalOutput(loss, logits, LanguageState(before + length, kept), hidden_states if shown else None)

    def prepare_inputs_for_generation(
        self,
        input_ids: Tensor,
        state: LanguageState | None = None,
        attention_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Read the newest token alone where there is a state of those before it."""
        refuse_early_pads(attention_mask)
        continues = self.config.mechanism.continues
        if state is None or not continues:
            return {"input_ids": input_ids, "state": None}
        return {"input_ids": input_ids[:, state.num_tokens :], "state": state}

    def _update_model_kwargs_for_generation(
        self, outputs: ModelOutput, model_kwargs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        model_kwargs["state"] = outputs["state"]
        return super()._update_model_kwargs_for_generation(outputs, model_kwargs, *args, **kwargs)

    def _reorder_cache(self, state: LanguageState, beam_idx: Tensor) -> LanguageState:
        """Return the state of the beams at ``beam_idx``."""
        layers = tuple(type(each)(*(tensor[beam_idx] for tensor in each)) for each in state.layers)
        return LanguageState(state.num_tokens, layers)

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False


class StudentForMaskedLM(StudentLanguageModel):
    """Predict masked tokens from all others, with ``BertForMaskedLM``'s interface."""

    auto_map: ClassVar[Mapping[str, str]] = {
        "AutoConfig": "configuration.StudentConfig",
        "AutoModelForMaskedLM": "language_models.StudentForMaskedLM",
    }
    is_causal = False

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
    ) -> MaskedLMOutput:
        """Return (B, N, V) logits, and the mean loss of the tokens that (B, N) labels name, in nats."""
        outputs = self.bert(
            input_ids=input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
        )
        logits = self.cls(outputs.last_hidden_state)
        return MaskedLMOutput(
            loss=None if labels is None else token_loss(logits, labels),
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


def token_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross entropy of (B, N, V) logits against (B, N) labels, in nats; negative labels do not count."""
    labels = labels.masked_fill(labels < 0, IGNORED[0])
    return F.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORED[0])


def refuse_early_pads(attention_mask: Tensor | None) -> None:
    """Refuse a (B, N) mask with pads in front of tokens, which would see them; ValueError says what to do."""
    if attention_mask is None or attention_mask.dim() != 2 or attention_mask.shape[1] < 2:
        return
    if attention_mask.device.type != "cpu" or makes_graph():  # a look would make a GPU wait and break a graph
        return
    mask = attention_mask.bool()
    if bool((mask[:, 1:] & ~mask[:, :-1]).any()):
        raise ValueError("pads stand in front of tokens, which would see them; give texts of one length at a time")
