"""The blocks of a decoder, and which of them learn."""

from torch import nn
from transformers import PreTrainedModel

from helpers.errors import CourseError


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
    """A decoder's blocks and final norm, by the names of GPT-2 or Llama; raises CourseError where it has others."""
    decoder = model.base_model
    for blocks, norm in [("h", "ln_f"), ("layers", "norm")]:
        if hasattr(decoder, blocks) and hasattr(decoder, norm):
            return getattr(decoder, blocks), getattr(decoder, norm)
    raise CourseError(
        f"{type(model).__name__} names its blocks in a way this engine does not know. "
        "Set model.num_layers_unfrozen to -1 to train all of it, or use a GPT-2 or Llama model."
    )
