"""`python -m tasks.training.base --job job.json`: a base from a config alone, made from the seed."""

import sys
from pathlib import Path

from transformers import AutoTokenizer

from tasks.runtime.job import Job
from tasks.runtime.logs import log_to_output
from tasks.store.errors import DaptError
from tasks.training.config import BaseJob
from tasks.training.model import initialised_model, save_model


def make_base(job: Job) -> None:
    """Initialise the model and save it, fp32, with the special tokens of its tokenizer."""
    spec = BaseJob.model_validate(job.spec)
    folder = Path(spec.model)
    model = initialised_model(folder, spec.seed)
    tokenizer = AutoTokenizer.from_pretrained(spec.tokenizer, local_files_only=True, trust_remote_code=False)
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        # the config may have been written before the tokenizer was trained
        setattr(model.config, name, getattr(tokenizer, name))
        setattr(model.generation_config, name, getattr(tokenizer, name))
    save_model(model, folder, job.folder / "model")
    job.write_result({"parameters": sum(p.numel() for p in model.parameters())})


if __name__ == "__main__":
    log_to_output()
    try:
        make_base(Job.from_argv())
    except DaptError as err:
        sys.exit(f"error: {err}")
