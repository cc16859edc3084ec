"""DeepSpeed's config from ours. Plain values: imports neither torch nor deepspeed.

Each flag has a reason: the optimizer is PyTorch's own AdamW (DeepSpeed's are compiled at run time, minutes
where there is a compiler, an error where there is none), which ZeRO takes only when told to; gradients are
summed in fp32 whatever the precision. Verified with DeepSpeed 0.19.8.
"""

from tasks.store.json import JSON
from tasks.training.config import TrainingConfig


def deepspeed_config(config: TrainingConfig, *, micro_batch: int, grad_accumulation_steps: int) -> JSON:
    """The dict that `deepspeed.initialize` takes."""
    zero: JSON = {"stage": config.zero_stage}
    if config.offload != "none":
        zero["offload_optimizer"] = {"device": "cpu"}
    if config.offload == "all":
        zero["offload_param"] = {"device": "cpu"}
    made: JSON = {
        "train_micro_batch_size_per_gpu": micro_batch,
        "gradient_accumulation_steps": grad_accumulation_steps,
        "gradient_clipping": config.max_grad_norm,
        "zero_optimization": zero,
        "zero_force_ds_cpu_optimizer": False,
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 10**9,
    }
    if config.precision == "bf16":
        made |= {"bf16": {"enabled": True}, "data_types": {"grad_accum_dtype": "fp32"}}
    return made


def environment(ranks: int, *, cores: int) -> dict[str, str]:
    """Environment of the training processes.

    Args:
        ranks: how many there are.
        cores: of this machine that they share.
    """
    return {
        "OMP_NUM_THREADS": str(max(1, cores // ranks)),
        "HF_HUB_OFFLINE": "1",  # models are resolved before; nothing here may wait for a network
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONWARNINGS": "ignore",  # DeepSpeed 0.19.8 warns of a deprecated collective at every step
    }
