"""The student: BERT with another self-attention.

Everything but the attention mechanism is transformers' own BERT code, and every module sits where BERT has it.
"""

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel, initialization
from transformers.activations import ACT2FN
from transformers.modeling_outputs import BaseModelOutputWithPooling, SequenceClassifierOutput
from transformers.models.bert.modeling_bert import BertPooler
from transformers.utils.generic import can_return_tuple

from .attention.base import SelfAttention
from .attention.ops.masking import makes_graph
from .configuration import StudentConfig
from .embeddings import StudentEmbeddings
from .encoder import StudentEncoder
from .remote_code import write_source
from .unpadded import encode_without_pads, saves_time


class StudentPreTrainedModel(PreTrainedModel):
    """Initialisation, saving and redraws, common to the encoder and to the classifier."""

    config: StudentConfig
    config_class = StudentConfig
    base_model_prefix = "bert"
    auto_map: ClassVar[Mapping[str, str]] = {
        "AutoConfig": "configuration.StudentConfig",
        "AutoModel": "modeling.StudentModel",
        "AutoModelForSequenceClassification": "modeling.StudentForSequenceClassification",
    }
    """Where transformers finds the classes in the source that is saved beside the weights."""
    supports_gradient_checkpointing = True
    _no_split_modules = ["StudentEmbeddings", "StudentLayer"]  # noqa: RUF012  # transformers reads lists here
    # Temperatures, projections and their scales define the random features, which half precision would change.
    _keep_in_fp32_modules_strict = ["projection", "log_temperature", "row_scale"]  # noqa: RUF012

    def get_correct_attn_implementation(self, requested_attention: str | None, is_init_check: bool = False) -> str:
        # Clients name BERT's kernels by habit; which one attends is the mechanism's own choice.
        requested_attention = "eager" if requested_attention in (None, "sdpa") else requested_attention
        return super().get_correct_attn_implementation(requested_attention, is_init_check)

    def _initialize_weights(self, module: nn.Module, is_custom_code: bool = False) -> None:
        # For custom code transformers takes modules without parameters of their own for initialised, and would skip a
        # mechanism whose parameters all sit in submodules. The shortcut is for code that ignores the marks of loaded
        # tensors; everything here initialises through transformers.initialization, which respects them.
        super()._initialize_weights(module)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, StudentEmbeddings):
            initialization.copy_(module.position_ids, torch.arange(module.position_ids.shape[-1]).expand((1, -1)))
            initialization.zeros_(module.token_type_ids)
        elif isinstance(module, SelfAttention):
            module.initialize_features()

    def redraw_projections(self, redraw_index: int) -> None:
        """Replace every random projection by draw number ``redraw_index``; call it between optimiser steps.

        Raises ValueError unless the configuration has ``features="redrawn"``.
        """
        if self.config.features != "redrawn":
            raise ValueError(f"features are {self.config.features!r}; only 'redrawn' ones can be drawn again")
        for module in self.modules():
            if isinstance(module, SelfAttention):
                module.redraw_features(redraw_index)

    def save_pretrained(
        self, save_directory: str | PathLike[str], is_main_process: bool = True, *args: Any, **kwargs: Any
    ) -> None:
        """Save weights, configuration and source code: AutoModel...from_pretrained(folder, trust_remote_code=True)."""
        self.config.auto_map = dict(self.auto_map)
        super().save_pretrained(save_directory, is_main_process, *args, **kwargs)
        if is_main_process:
            # The configuration names the student's own mechanisms even where every layer has kept softmax.
            used = self.config.named_mechanisms | self.config.mechanisms
            write_source(Path(save_directory), used, self.auto_map)


class StudentModel(StudentPreTrainedModel):
    """The encoder and pooler, with ``BertModel``'s interface."""

    def __init__(self, config: StudentConfig, add_pooling_layer: bool = True) -> None:
        super().__init__(config)
        self.embeddings = StudentEmbeddings(config)
        self.encoder = StudentEncoder(config)
        self.pooler = BertPooler(config) if add_pooling_layer else None
        if self.pooler is not None and config.pooler_act != "tanh":
            self.pooler.activation = ACT2FN[config.pooler_act]
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        return self.embeddings.word_embeddings

    def set_input_embeddings(self, value: nn.Module) -> None:
        assert isinstance(value, nn.Embedding)
        self.embeddings.word_embeddings = value

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        first_token_only: bool = False,
    ) -> BaseModelOutputWithPooling:
        """Encode (B, N) tokens; ``attention_mask`` is (B, N), nonzero at real tokens.

        With ``first_token_only`` the last layer computes what a classifier reads, (B, 1, D), and no other token; not
        where hidden states are to be returned. Attentions are one map (B, H, N, N) per layer, without dropout, at a
        quadratic cost; ValueError where a mechanism has none.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give exactly one of input_ids and inputs_embeds")
        if self.config.causal:
            raise ValueError("a causal encoder reads by look_back, as a language model does")
        hidden_states = self.embeddings(
            input_ids=input_ids,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
        )
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        if output_attentions is None:
            output_attentions = self.config.output_attentions
        first_token_only = first_token_only and not output_hidden_states
        mask = real_tokens(attention_mask)
        if first_token_only and mask is not None and not output_attentions and saves_time(self.encoder, mask):
            all_hidden_states = (encode_without_pads(self.encoder, hidden_states, mask),)
        else:
            all_hidden_states = self.encoder(hidden_states, mask, first_token_only)
        return BaseModelOutputWithPooling(
            last_hidden_state=all_hidden_states[-1],
            pooler_output=None if self.pooler is None else self.pooler(all_hidden_states[-1]),
            hidden_states=all_hidden_states if output_hidden_states else None,
            attentions=self.encoder.attention_maps(all_hidden_states, mask) if output_attentions else None,
        )


class StudentForSequenceClassification(StudentPreTrainedModel):
    """Classifier or regressor on the pooled first token, with ``BertForSequenceClassification``'s interface."""

    def __init__(self, config: StudentConfig) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels or 2
        self.bert = StudentModel(config)
        dropout = config.classifier_dropout
        self.dropout = nn.Dropout(config.hidden_dropout_prob if dropout is None else dropout)
        self.classifier: nn.Module = nn.Linear(config.hidden_size, self.num_labels)
        self.post_init()

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
    ) -> SequenceClassifierOutput:
        """Return (B, C) logits, and the loss where (B,) labels are given; inputs as in ``StudentModel``.

        The last layer computes the first token alone unless hidden states are asked for: the logits are the same.
        """
        outputs = self.bert(
            input_ids=input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            first_token_only=self.config.reads_first_token,
            return_dict=True,
        )
        logits = self.classifier(self.dropout(self.summarise(outputs, attention_mask)))
        loss = None if labels is None else classification_loss(logits, labels, self.config.problem_type)
        return SequenceClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )

    def summarise(self, outputs: BaseModelOutputWithPooling, attention_mask: Tensor | None) -> Tensor:
        """Return what the classifier reads of each example: the pooled first token (B, D)."""
        assert outputs.pooler_output is not None
        return outputs.pooler_output


def real_tokens(attention_mask: Tensor | None) -> Tensor | None:
    """Turn a (B, N) attention mask into bool, or None where every token is real, which attends faster."""
    if attention_mask is None:
        return None
    if attention_mask.dim() != 2:
        raise ValueError(f"attention_mask must be (batch, length), got shape {tuple(attention_mask.shape)}")
    mask = attention_mask.bool()
    # Looking into the mask would make a GPU wait and break a graph.
    if mask.device.type == "cpu" and not makes_graph() and bool(mask.all()):
        return None
    return mask


def classification_loss(logits: Tensor, labels: Tensor, problem_type: str | None) -> Tensor:
    """Mean loss of (B, C) logits as BERT has it: squared error, cross entropy, or binary cross entropy per label.

    Without a problem type, one logit means regression, whole-numbered labels one class each, others several.
    """
    if problem_type is None:
        several = labels.is_floating_point()
        problem_type = "multi_label_classification" if several else "single_label_classification"
        problem_type = "regression" if logits.shape[-1] == 1 else problem_type
    if problem_type == "regression":
        return F.mse_loss(logits, labels.to(logits.dtype).view_as(logits))
    if problem_type == "single_label_classification":
        return F.cross_entropy(logits, labels.view(-1))
    return F.binary_cross_entropy_with_logits(logits, labels)
