"""The course's policy as trlX takes a model: the methods and attributes that trlX uses, and no more."""

from typing import NamedTuple

from torch import Tensor, nn
from transformers import PreTrainedModel

from helpers.errors import CourseError
from helpers.ppo import loss
from helpers.ppo.policy import Policy, hidden_states, most_tokens


class Output(NamedTuple):
    """What a forward pass gives trlX, which takes it apart as a tuple when it samples and by name when it updates."""

    logits: Tensor  # (B, T, V)
    value: Tensor | None  # (B, T)


class PolicyForTrlx(nn.Module):
    """Our `Policy` with the methods that trlX calls on its models.

    Today's transformers refuses trlX's own reference. Made to run, that reference gets no causal mask and so reads ahead, and for
    `num_layers_unfrozen` 0 and -1 it is another model. Ours is the policy as it was before the first update.
    Until: trlX's `forward` and `forward_hydra` agree to the last bit before the first update, for -1, 0 and 2.
    """

    peft_type = None  # trlX asks for it; helpers/ppo/lora.py adds adapters by itself

    def __init__(self, policy: Policy):
        super().__init__()
        self.policy = policy
        self.ref_logprobs: list[Tensor] = []  # (T - 1,) for each rollout of this round

    @property
    def base_model(self) -> PreTrainedModel:
        """The network that learns."""
        return self.policy.base_model

    @property
    def frozen_head(self) -> PreTrainedModel:
        """The reference. trlX loads no second model where a model has this attribute."""
        return self.policy.reference

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        position_ids: Tensor | None = None,
        return_dict: bool = True,
    ) -> Output:
        """The policy's logits and values for `input_ids` (B, T), of which `attention_mask` (B, T) marks the text.

        trlX gives the last two arguments; the positions follow from the mask here.

        Raises:
            CourseError: the texts have more tokens than the model has positions.
        """
        limit = most_tokens(self.base_model)
        if input_ids.shape[1] > limit:
            raise CourseError(
                f"a prompt and its response have {input_ids.shape[1]} tokens, and the model has {limit} positions. trlX tokenises "
                "responses anew, which can make them longer: lower max_new_tokens, or shorten the prompts."
            )
        hidden = hidden_states(self.base_model, input_ids, attention_mask)
        logits = self.base_model.get_output_embeddings()(hidden)
        return Output(logits, self.policy.v_head(hidden).squeeze(-1))

    def forward_hydra(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        position_ids: Tensor | None = None,
        return_dict: bool = True,
    ) -> Output:
        """The reference's logits for `input_ids` (B, T); `ref_logprobs` keeps the log-probabilities of the tokens."""
        hidden = hidden_states(self.frozen_head, input_ids, attention_mask)
        logits = self.frozen_head.get_output_embeddings()(hidden)
        distribution = loss.log_distribution(logits[:, :-1])
        self.ref_logprobs += loss.token_logprobs(distribution, input_ids[:, 1:]).cpu()
        return Output(logits, None)

    def generate(self, *args, **kwargs) -> Tensor:
        """Token ids, sampled by transformers' `generate` with these arguments."""
        return self.base_model.generate(*args, **kwargs)
