"""Checks for the exercises, one module a notebook: each names the mistake that was made."""

from helpers.exercises.beyond_ppo import check_dpo_loss, check_group_advantages
from helpers.exercises.clinic import check_log_pi_plus_entropy, check_standard_errors
from helpers.exercises.finetune import check_labels, check_learning_rates, check_perplexity
from helpers.exercises.goodhart import check_cautious_reward, check_longer_chosen
from helpers.exercises.human_feedback import check_error_rate, check_graded_loss, check_raw_beta
from helpers.exercises.inside_ppo import check_clipped_loss, check_gae, check_k3, check_rloo, check_whiten
from helpers.exercises.install import check_parts, check_reward_function
from helpers.exercises.own_project import check_preflight, check_reward_parts
from helpers.exercises.pipeline import check_calibration_error, check_stars, check_undeserved
from helpers.exercises.prompts import check_near, check_prompt_plans, check_top_p
from helpers.exercises.reward import (
    check_length_penalty,
    check_robust_keywords,
    check_suspects,
)
from helpers.exercises.scale import check_accumulate, check_cost, check_memory
from helpers.exercises.train import check_diagnosis, check_kl, check_next_beta, check_token_rewards
