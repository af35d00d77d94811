"""Networks that a pipeline of diffusers calls as it calls its own, and whose numbers come from graphs.

Each is the class itself, built from its configuration without weights: what a pipeline asks it about, how a VAE cuts
pictures into tiles, and what hooks into it stay the library's own. Only its `forward`, or its halves, are others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from models.onnx.sessions import Session
from router.errors import StepError

Sessions = Mapping[str, Session]
"""By the folder of a graph, "" for that of the network itself."""


def run_by(network: Any, sessions: Sessions) -> Any:
    """The network, built on the `meta` device, after its weights were taken out and the graphs put in."""
    import torch

    for module in network.modules():
        module._parameters.clear()
        module._buffers.clear()
    # Pipelines ask their networks for dtype and device, which these take from their first parameter.
    network.register_parameter("nothing", torch.nn.Parameter(torch.empty(0), requires_grad=False))
    INTO[type(network).__name__](network, sessions)
    return network.eval()


def _unet(network: Any, sessions: Sessions) -> None:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput

    session = sessions[""]

    def forward(
        sample: Any,
        timestep: Any,
        encoder_hidden_states: Any,
        added_cond_kwargs: Mapping[str, Any] | None = None,
        return_dict: bool = True,
        **others: Any,
    ) -> Any:
        _none_of(others)
        given = {
            "sample": sample,
            "timestep": _tensor(timestep, sample).reshape(1),
            "encoder_hidden_states": encoder_hidden_states,
            **(added_cond_kwargs or {}),
        }
        made = session(given)["out_sample"]
        return UNet2DConditionOutput(sample=made) if return_dict else (made,)

    network.forward = forward


def _flux(network: Any, sessions: Sessions) -> None:
    from diffusers.models.modeling_outputs import Transformer2DModelOutput

    session = sessions[""]

    def forward(
        hidden_states: Any,
        encoder_hidden_states: Any,
        pooled_projections: Any,
        timestep: Any,
        img_ids: Any,
        txt_ids: Any,
        guidance: Any = None,
        return_dict: bool = True,
        **others: Any,
    ) -> Any:
        _none_of(others)
        given = {
            "hidden_states": hidden_states,
            "encoder_hidden_states": encoder_hidden_states,
            "pooled_projections": pooled_projections,
            "timestep": timestep,
            "img_ids": img_ids,
            "txt_ids": txt_ids,
        }
        made = session(given | ({} if guidance is None else {"guidance": guidance}))["sample"]
        return Transformer2DModelOutput(sample=made) if return_dict else (made,)

    network.forward = forward


def _clip(network: Any, sessions: Sessions) -> None:
    from transformers.modeling_outputs import BaseModelOutputWithPooling
    from transformers.models.clip.modeling_clip import CLIPTextModelOutput

    session = sessions[""]
    layers = [name for name in session.outputs if name.startswith("hidden_states.")]

    def forward(input_ids: Any, **others: Any) -> Any:
        _none_of(others)
        made = session({"input_ids": input_ids})
        words = {name: value for name, value in made.items() if name not in layers}
        output = CLIPTextModelOutput if "text_embeds" in words else BaseModelOutputWithPooling
        return output(**words, hidden_states=tuple(made[name] for name in layers))

    network.forward = forward


def _t5(network: Any, sessions: Sessions) -> None:
    from transformers.modeling_outputs import BaseModelOutput

    session = sessions[""]

    def forward(input_ids: Any, **others: Any) -> Any:
        _none_of(others)
        return BaseModelOutput(**session({"input_ids": input_ids}))

    network.forward = forward


def _vae(network: Any, sessions: Sessions) -> None:
    import torch

    class Half(torch.nn.Module):
        """An encoder or decoder, with the convolution between it and the latents."""

        def __init__(self, session: Session) -> None:
            super().__init__()
            self._session = session

        def forward(self, sample: Any) -> Any:
            (name,), (output,) = self._session.inputs, self._session.outputs
            return self._session({name: sample})[output]

    network.encoder, network.decoder = Half(sessions["vae_encoder"]), Half(sessions["vae_decoder"])
    network.quant_conv = network.post_quant_conv = torch.nn.Identity()  # they are in the graphs


INTO: dict[str, Callable[[Any, Sessions], None]] = {
    "UNet2DConditionModel": _unet,
    "FluxTransformer2DModel": _flux,
    "CLIPTextModel": _clip,
    "CLIPTextModelWithProjection": _clip,
    "T5EncoderModel": _t5,
    "AutoencoderKL": _vae,
}
"""By class, as `graphs.GRAPHS`."""


def _none_of(others: Mapping[str, Any]) -> None:
    """Refuse what a graph has no input for: it would be ignored."""
    for name, value in others.items():
        if value is not None and value != {} and not isinstance(value, bool):
            raise StepError(f"an exported network takes no {name}; draw this with the model that it was exported from")


def _tensor(number: Any, like: Any) -> Any:
    import torch

    return number if isinstance(number, torch.Tensor) else torch.tensor(float(number), device=like.device)
