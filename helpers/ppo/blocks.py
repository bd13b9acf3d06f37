"""The blocks of a decoder, and which of them learn."""

from torch import nn
from transformers import PreTrainedModel

from helpers.errors import CourseError

# GPT-2's, Bloom's and Falcon's; Llama's, Qwen's and Gemma's; GPT-NeoX's (Pythia) and OPT's; Phi's
NAMES = [("h", "ln_f"), ("layers", "norm"), ("layers", "final_layer_norm"), ("layers", "final_layernorm")]


def freeze_below(model: PreTrainedModel, num_layers_unfrozen: int) -> None:
    """Freeze all but the top blocks, the final norm and, where there is one that is not tied to the embeddings, the output layer.

    Raises:
        CourseError: the model has fewer blocks than that, or `decoder_blocks` does not know their names.
    """
    if num_layers_unfrozen == -1:
        return
    depth = model.config.num_hidden_layers
    if not 0 <= num_layers_unfrozen <= depth:
        raise CourseError(
            f"model.num_layers_unfrozen is {num_layers_unfrozen}: expected -1 (all) or 0 to {depth}"
        )
    model.requires_grad_(False)
    if num_layers_unfrozen == 0:
        return
    blocks, final_norm = decoder_blocks(model)
    learn = [*blocks[depth - num_layers_unfrozen :], final_norm]
    output = model.get_output_embeddings()  # a classifier has none
    if output is not None and output.weight is not model.get_input_embeddings().weight:
        learn.append(output)
    for module in learn:
        module.requires_grad_(True)


def decoder_blocks(model: PreTrainedModel) -> tuple[nn.ModuleList, nn.Module]:
    """A decoder's blocks and final norm, by the names of NAMES; raises CourseError where it has others."""
    decoder = getattr(model.base_model, "decoder", model.base_model)  # OPT's is one level further down
    for blocks, norm in NAMES:
        found = getattr(decoder, blocks, None), getattr(decoder, norm, None)
        if None not in found:
            return found
    raise CourseError(
        f"{type(model).__name__} names its blocks in a way this engine does not know. "
        "Set model.num_layers_unfrozen to -1 to train all of it, or use a GPT-2 or Llama model."
    )
