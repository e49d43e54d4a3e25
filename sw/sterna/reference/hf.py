"""HGRNBit under the names of Hugging Face transformers.

Importing this module registers the model types `hgrn_bit` and `hgrn_bit_reservoir`, so that
`AutoModelForCausalLM.from_pretrained(directory)` and `generate` work on published checkpoints and on those of the
reservoir variant. It needs transformers; nothing else in the package does.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput

from sterna.model.geometry import MODEL_TYPE
from sterna.model.reservoir import RESERVOIR_MODEL_TYPE
from sterna.reference.bitlinear import BitLinear, RMSNorm, init_weight
from sterna.reference.config import HGRNBitConfig
from sterna.reference.modeling import Body

__all__ = [
    "HGRNBitForCausalLM",
    "HGRNBitHFConfig",
    "HGRNBitOutput",
    "HGRNBitReservoirForCausalLM",
    "HGRNBitReservoirHFConfig",
    "register",
]


# transformers is left out of type checking, so its classes are untyped bases.
class HGRNBitHFConfig(PretrainedConfig):  # type: ignore[misc]
    """`config.json` of the model type `hgrn_bit`; checked by `HGRNBitConfig`."""

    model_type = MODEL_TYPE

    def __init__(self, **values: Any) -> None:
        defaults = HGRNBitConfig().to_dict()
        for key in ("model_type", "architectures", "dtype"):
            del defaults[key]
        super().__init__(**(defaults | values))

    def reference(self) -> HGRNBitConfig:
        """The same configuration in the form that the reference modules take."""
        return HGRNBitConfig.from_dict(self.to_dict())


class HGRNBitReservoirHFConfig(HGRNBitHFConfig):
    """`config.json` of the model type `hgrn_bit_reservoir`: the same keys and the table `reservoir`."""

    model_type = RESERVOIR_MODEL_TYPE

    def __init__(self, **values: Any) -> None:
        super().__init__(**values)  # transformers writes an __init__ without defaults for a class that has none


@dataclasses.dataclass
class HGRNBitOutput(ModelOutput):  # type: ignore[misc]
    """loss (scalar, if labels were given), logits [batch, time, V] and recurrent state [L, batch, d]."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    state: Tensor | None = None


class HGRNBitForCausalLM(PreTrainedModel, GenerationMixin):  # type: ignore[misc]
    """The trainable reference model as a transformers model; the cache of `generate` is the recurrent state."""

    config_class = HGRNBitHFConfig
    base_model_prefix = "model"
    _is_stateful = True

    def __init__(self, config: HGRNBitHFConfig) -> None:
        super().__init__(config)
        sizes = config.reference()
        self.model = Body(sizes)
        self.lm_head = BitLinear(sizes.hidden_size, sizes.vocab_size)
        self.post_init()

    def _init_weights(self, module: torch.nn.Module) -> None:
        if isinstance(module, RMSNorm):
            torch.nn.init.ones_(module.weight)
        elif isinstance(module, Body):
            torch.nn.init.zeros_(module.lower_bounds)
            for layer in module.modules():  # from here, as transformers passes over modules without own parameters
                if isinstance(layer, BitLinear) and layer.fixed:
                    size = self.config.initializer_range * math.sqrt(layer.shape[1])
                    torch.nn.init.constant_(layer.norm.weight, size)
        elif isinstance(module, (BitLinear, torch.nn.Embedding)) and isinstance(module.weight, Tensor):
            init_weight(module.weight, self.config.initializer_range)

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False

    def get_input_embeddings(self) -> torch.nn.Module:
        """The embedding table."""
        return self.model.embeddings

    def get_output_embeddings(self) -> None:
        """None: the head is a BitLinear and is never tied to the embedding."""
        return

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        state: Tensor | None = None,
        **_: Any,
    ) -> HGRNBitOutput:
        """input_ids and labels int64 [batch, time]; labels are shifted inside, -100 is ignored."""
        for module in self.modules():
            if isinstance(module, BitLinear) and module.frozen and module.trits is None:
                module.generate()  # fixed trits are in no file, and loading has no place to make them
        if state is None:
            shape = (len(self.model.layers), input_ids.shape[0], self.config.hidden_size)
            state = self.model.norm.weight.new_zeros(shape)
        mask = None if attention_mask is None else attention_mask[:, -input_ids.shape[1] :]
        x, state = self.model(input_ids, state, mask=mask)
        logits = self.lm_head(x)
        loss = None
        if labels is not None:
            loss = F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten())
        return HGRNBitOutput(loss=loss, logits=logits, state=state)

    def prepare_inputs_for_generation(
        self, input_ids: Tensor, state: Tensor | None = None, attention_mask: Tensor | None = None, **_: Any
    ) -> dict[str, Any]:
        """The whole prompt at first, then the last id with the state after those before it."""
        if state is not None:
            return {"input_ids": input_ids[:, -1:], "state": state}
        return {"input_ids": input_ids, "attention_mask": attention_mask}

    def _update_model_kwargs_for_generation(
        self, outputs: HGRNBitOutput, model_kwargs: dict[str, Any], **options: Any
    ) -> dict[str, Any]:
        kwargs: dict[str, Any] = super()._update_model_kwargs_for_generation(outputs, model_kwargs, **options)
        return kwargs | {"state": outputs.state}


class HGRNBitReservoirForCausalLM(HGRNBitForCausalLM):
    """The same for reservoir models; transformers wants one class for each model type."""

    config_class = HGRNBitReservoirHFConfig


def register() -> None:
    """Make the Auto classes of transformers know the model types; harmless when repeated."""
    for model in (HGRNBitForCausalLM, HGRNBitReservoirForCausalLM):
        AutoConfig.register(model.config_class.model_type, model.config_class, exist_ok=True)
        AutoModelForCausalLM.register(model.config_class, model, exist_ok=True)


register()
