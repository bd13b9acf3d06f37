"""What notebook 02 needs beside the training loop it teaches: perplexity over a whole dataset, and a picture of a batch."""

import math
from collections.abc import Iterable, Mapping

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor
from transformers import PreTrainedModel

from helpers.errors import CourseError
from helpers.palette import BLUE, ORANGE

PALE = "#E5E5E5"  # padding, beside BLUE for text and ORANGE for its end


@torch.no_grad()
def perplexity(model: PreTrainedModel, batches: Iterable[Mapping[str, Tensor]]) -> float:
    """exp of the mean loss per predicted token, over all batches; every token counts the same.

    A batch's loss is the mean over its own tokens, so it is weighted by how many it predicted: a label of -100 is no token,
    and the first token of a row has nothing before it to be predicted from.

    Args:
        model: a causal language model; it is left in evaluation mode, without dropout.
        batches: dicts of tensors (rows, length) named input_ids, attention_mask and labels, for instance a DataLoader.

    Raises:
        CourseError: there is no token to predict.
    """
    model.eval()
    total, count = 0.0, 0
    for batch in batches:
        batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
        tokens = (batch["labels"][:, 1:] != -100).sum().item()
        if tokens:
            total += model(**batch).loss.item() * tokens
            count += tokens
    if not count:
        raise CourseError("perplexity needs at least one token to predict, but every label is -100")
    return math.exp(total / count)


def draw_batch(batch: Mapping[str, Tensor], end_of_text: int) -> Figure:
    """Draw a batch twice, a row for each text and a column for each token: what the model reads, and its labels.

    Text is blue, end-of-text tokens are orange and marked E, labels that do not count are grey.

    Args:
        batch: input_ids and labels, tensors (rows, length).
        end_of_text: the id of the end-of-text token.

    Returns:
        The matplotlib figure.
    """
    figure, axes = plt.subplots(2, 1, figsize=(9, 3.6), layout="constrained", sharex=True)
    titles = ["What the model reads: input_ids", "What it learns to predict: labels"]
    for axis, ids, title in zip(axes, [batch["input_ids"], batch["labels"]], titles, strict=True):
        ids = ids.numpy()
        kinds = np.select([ids == -100, ids == end_of_text], [2, 1], 0)
        axis.pcolormesh(
            kinds,
            cmap=ListedColormap([BLUE, ORANGE, PALE]),
            vmin=0,
            vmax=2,
            edgecolors="white",
            linewidth=0.5,
        )
        for row, column in np.argwhere(kinds == 1):
            axis.text(column + 0.5, row + 0.5, "E", ha="center", va="center", fontsize=7, color="white")
        axis.invert_yaxis()
        axis.set(title=title, ylabel="review", yticks=[])
    axes[1].set_xlabel("position (tokens)")
    names = {"text": BLUE, "end of text (E)": ORANGE, "-100: does not count": PALE}
    handles = [Patch(facecolor=colour, edgecolor="grey", label=name) for name, colour in names.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    plt.close(figure)  # the notebook shows it once, as the cell's result
    return figure
