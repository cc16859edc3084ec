"""The recipe: what to build. A frozen composition of the stage configs, the first parameter of every flow.

`load_recipe` reads TOML, applies `--set` overrides, makes relative paths absolute (relative to the recipe's
file) and answers mistakes with one line an error: the field, what was found, what was expected.
"""

import difflib
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, Field, ValidationError, model_validator

from tasks.dedup.config import DedupConfig, HeldOutConfig
from tasks.download.config import SourceConfig
from tasks.evaluation.config import EvaluationConfig
from tasks.filtering.config import FilteringConfig
from tasks.packing.config import PackingConfig
from tasks.store.config import StageConfig
from tasks.store.errors import RecipeError
from tasks.store.fingerprint import canonical_json, combined_digest
from tasks.store.json import JSON
from tasks.store.masking import SECRETS, credential_in
from tasks.store.tokens import Tokens, format_tokens
from tasks.tokenization.config import TokenizationConfig
from tasks.training.config import TrainingConfig
from tasks.training.replay import Replay

RECIPE_REFERENCE = "recipe:"
SLICES = ("domain", "general")
LEAST_REPLAY, _MOST_REPLAY = 0.01, 0.25
_MOST_PASSES = 4
"""Up to four epochs, repeated text is worth nearly as much as new text (Muennighoff et al., Scaling
Data-Constrained Language Models, 2023, arXiv:2305.16264, section 6)."""
_SHAPES = {
    "list_type": "a list: [...]",
    "tuple_type": "a list: [...]",
    "dict_type": "a section of its own",
    "model_type": "a section of its own",
}
"""What TOML calls the shapes that pydantic names in Python's words."""


class BudgetConfig(StageConfig):
    """How many tokens of the domain."""

    milestones: list[Tokens] = Field(min_length=1)
    """Tokens after packing, growing; each is trained and evaluated."""

    @model_validator(mode="after")
    def _growing(self) -> Self:
        for smaller, larger in zip(self.milestones, self.milestones[1:], strict=False):
            if larger <= smaller:
                told = ", ".join(map(format_tokens, self.milestones))
                raise ValueError(f"milestones must grow, found {told}; order them and leave doubles out")
        return self


class GeneralConfig(SourceConfig):
    """Text like the base model's own: its held-out slice measures forgetting, replay counters it."""

    replay_fraction: float = 0.0
    """Share of general sequences among all that training sees, 0.01 to 0.25; 0: measured, not replayed."""
    max_repeats: int = Field(_MOST_PASSES, ge=1)
    """Times that training may see a general row, where its sources hold fewer than replay needs."""

    @model_validator(mode="after")
    def _replayable(self) -> Self:
        if self.replay_fraction and not LEAST_REPLAY <= self.replay_fraction <= _MOST_REPLAY:
            raise ValueError(
                f"replay_fraction is {self.replay_fraction}; expected {LEAST_REPLAY} to {_MOST_REPLAY} of "
                "all sequences, or 0, which measures general text and replays none"
            )
        if self.max_repeats != _MOST_PASSES and not self.replay_fraction:
            raise ValueError(
                f"max_repeats={self.max_repeats} is about replay, and replay_fraction is 0; give it too, or "
                "leave max_repeats out"
            )
        if self.adopted:
            raise ValueError("adopted tokens have no text to measure; give dataset, files or source")
        return self


class Recipe(StageConfig):
    """What to build, from the source to the report."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    """Lower-case letters, digits and hyphens; names deployments and records, never an identity."""
    seed: int = Field(17, ge=0)
    """Of training, and of a base model that is initialised here."""
    budget: BudgetConfig
    download: SourceConfig
    filtering: FilteringConfig = FilteringConfig()
    dedup: DedupConfig = DedupConfig()
    tokenization: TokenizationConfig = TokenizationConfig()
    packing: PackingConfig = PackingConfig()
    held_out: HeldOutConfig = HeldOutConfig()
    general: GeneralConfig | None = None
    training: TrainingConfig
    evaluation: EvaluationConfig = EvaluationConfig()

    @model_validator(mode="after")
    def _milestones_hold_a_batch(self) -> Self:
        before = 0
        for budget, sequences in zip(self.budget.milestones, self.sequences, strict=True):
            if sequences - before < self.training.global_batch_sequences:
                raise ValueError(
                    f"budget.milestones: {format_tokens(budget)} adds {sequences - before} sequences of "
                    f"{self.packing.sequence_length} tokens, less than one global batch of "
                    f"training.global_batch_sequences = {self.training.global_batch_sequences}; "
                    "raise the milestone or lower the batch"
                )
            before = sequences
        return self

    @model_validator(mode="after")
    def _something_replayed(self) -> Self:
        if self.replay_fraction and not self.replayed[0]:
            seen = self.training.epochs * self.sequences[0]
            raise ValueError(
                f"general.replay_fraction is {self.replay_fraction}, and beside the {seen} sequences of "
                "budget.milestones[0] that is not one; raise one of them, or set it to 0"
            )
        return self

    @model_validator(mode="after")
    def _nothing_ignored(self) -> Self:
        """Adopted tokens pass no stage before packing: what is asked of one would be ignored in silence."""
        if not self.download.adopted:
            return self
        judged = self.tokenization.model_copy(update={"tokenizer": ""})
        given = {
            "filtering": self.filtering != FilteringConfig() and self.general is None,
            "dedup": self.dedup != DedupConfig() and self.general is None,
            "tokenization": judged != TokenizationConfig() and not self.replay_fraction,
        }
        for section, asked in given.items():
            if asked:
                raise ValueError(
                    f"{section} works on text, and download.adopted names tokens; leave {section} out"
                    + (" but for its tokenizer" if section == "tokenization" else "")
                )
        return self

    @model_validator(mode="after")
    def _benchmarks_to_look_for(self) -> Self:
        asked = self.dedup.decontaminate
        if asked != "off" and not self.evaluation.benchmarks:
            raise ValueError(
                f"dedup.decontaminate is {asked!r} and evaluation.benchmarks is empty: there is nothing to "
                "look for; name the benchmarks, or leave decontaminate out"
            )
        return self

    @model_validator(mode="after")
    def _reference_to_select_by(self) -> Self:
        if self.training.selective is not None and not self.training.selective.reference:
            raise ValueError(
                "training.selective.reference is missing: name the model whose losses select the tokens, or "
                "leave training.selective out"
            )
        return self

    @model_validator(mode="after")
    def _tolerance_of_what_is_measured(self) -> Self:
        for name, allowed in self.evaluation.tolerance.items():
            field = f"evaluation.tolerance.{name}"
            if name in self.evaluation.benchmarks:
                if allowed >= 1:
                    raise ValueError(
                        f"{field} is {allowed:g}, and no accuracy can fall by so much; two points are 0.02"
                    )
            elif name not in self.slices:
                known = ", ".join([*self.evaluation.benchmarks, *self.slices]) or "nothing"
                raise ValueError(f"{field}: {self._why_unmeasured(name)} (measured: {known})")
        return self

    def _why_unmeasured(self, name: str) -> str:
        """Why a tolerance names nothing that is measured, and what to do."""
        if name not in SLICES:
            return "no such benchmark or slice is measured; add it to evaluation.benchmarks, or leave it out"
        if not self.held_out.fraction:
            return "held_out.fraction is 0, so no slice is measured; raise it, or leave this out"
        if name == "general":
            return "there is no general corpus to measure; add [general], or leave this out"
        return "adopted tokens have no text to measure; leave it out"

    @model_validator(mode="after")
    def _slices_to_evaluate_at(self) -> Self:
        if self.training.eval_at and not self.slices:
            raise ValueError(
                f"training.eval_at is {list(self.training.eval_at)}, and no held-out slice is measured: set "
                "held_out.fraction, or leave eval_at out"
            )
        return self

    @model_validator(mode="after")
    def _no_credentials(self) -> Self:
        for field, text in _texts(self.model_dump(mode="json"), ""):
            if found := credential_in(text):
                raise ValueError(
                    f"{field}: the URL carries {found}, which manifests, logs and the server's database "
                    f"would keep; leave it out and set {', '.join(SECRETS)} in the environment or as "
                    "Prefect Secret blocks (hf-token, aws-access-key-id, ...)"
                )
        return self

    @property
    def slices(self) -> list[str]:
        """The held-out slices that are measured."""
        has_text = {"domain": not self.download.adopted, "general": self.general is not None}
        return [name for name in SLICES if has_text[name] and self.held_out.fraction]

    @property
    def sequences(self) -> list[int]:
        """Sequences of each milestone's corpus: ceil(tokens / sequence_length)."""
        return [-(-budget // self.packing.sequence_length) for budget in self.budget.milestones]

    @property
    def replay_fraction(self) -> float:
        """Share of general sequences among all that training sees."""
        return self.general.replay_fraction if self.general else 0.0

    def trained(self, sequences: int) -> int:
        """Sequences that training sees in all its epochs, replayed ones too, with so many in the corpus."""
        return Replay(self.replay_fraction).total(self.training.epochs * sequences)

    @property
    def replayed(self) -> list[int]:
        """General sequences that the training of each milestone sees."""
        return [self.trained(number) - self.training.epochs * number for number in self.sequences]

    @property
    def digest(self) -> str:
        """What this recipe's record is called: a digest of everything in it."""
        return combined_digest([canonical_json(self.model_dump(mode="json"))])


def load_recipe(file: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe.

    Args:
        file: a TOML file.
        overrides: `training.learning_rate=2e-4`: a dotted path and a TOML value (a bare word is a string).

    Raises:
        RecipeError: one line an error.
    """
    path = Path(file).expanduser().absolute()
    try:
        body: JSON = tomllib.loads(path.read_text())
    except FileNotFoundError as err:
        raise RecipeError(f"there is no recipe {file}; `dapt init MODEL DATA` writes one") from err
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as err:
        raise RecipeError(f"{file} cannot be read as TOML: {err}") from err
    for override in overrides:
        _apply(body, override)
    try:
        recipe = Recipe.model_validate(body)
    except ValidationError as err:
        raise RecipeError("\n".join(_told(str(file), error) for error in err.errors())) from err
    return _absolute(recipe, path.parent)


def _apply(body: JSON, override: str) -> None:
    field, equals, text = override.partition("=")
    if not equals or not field.strip(" ."):
        raise RecipeError(f"--set {override!r}: expected field=value, such as training.learning_rate=2e-4")
    try:
        value: object = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    *sections, name = map(str.strip, field.split("."))
    if not all([*sections, name]):
        raise RecipeError(f"--set {override!r}: a name between the dots is empty")
    place = body
    for section in sections:
        place = place.setdefault(section, {})
        if not isinstance(place, dict):
            raise RecipeError(f"--set {override!r}: {section} is a value, expected a section")
    place[name] = value


def _texts(value: object, field: str) -> Iterator[tuple[str, str]]:
    """Every text in plain JSON, with the dotted path of its field."""
    if isinstance(value, str):
        yield field, value
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one, field)
    elif isinstance(value, dict):
        for name, one in value.items():
            yield from _texts(one, f"{field}.{name}".lstrip("."))


def _told(file: str, error: Any) -> str:
    """One line for one of pydantic's errors."""
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        known = _fields_of(error["loc"][:-1])
        near = difflib.get_close_matches(str(error["loc"][-1]), known, n=1)
        hint = f"; did you mean {near[0]}?" if near else f"; known: {', '.join(known)}"
        return f"{file}: {where}: there is no such key{hint}"
    if error["type"] == "missing":
        return f"{file}: {where}: is missing and has no default"
    expected = _SHAPES.get(error["type"])
    message = f"expected {expected}" if expected else str(error["msg"]).removeprefix("Value error, ")
    found = error["input"]
    told = "" if isinstance(found, dict | BaseModel) or repr(found) in message else f" (found {found!r})"
    return f"{file}: {where + ': ' if where else ''}{message[:1].lower() + message[1:]}{told}"


def _fields_of(location: tuple[Any, ...]) -> list[str]:
    model: type[BaseModel] | None = Recipe
    for part in location:
        field = model.model_fields.get(part) if model is not None else None
        if field is None:
            return []
        kinds = [field.annotation, *getattr(field.annotation, "__args__", ())]
        model = next((k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)), None)
    return sorted(model.model_fields) if model is not None else []


def _absolute(recipe: Recipe, folder: Path) -> Recipe:
    """Paths made absolute, so that a recipe means the same wherever it runs."""
    changes: JSON = {"download": _absolute_source(recipe.download, folder)}
    if recipe.general is not None:
        changes["general"] = _absolute_source(recipe.general, folder)
    base = _absolute_model(recipe.training.base_model, folder)
    training: JSON = {"base_model": base}
    if recipe.training.selective is not None:
        reference = _absolute_model(recipe.training.selective.reference, folder)
        training["selective"] = recipe.training.selective.model_copy(update={"reference": reference})
    changes["training"] = recipe.training.model_copy(update=training)
    tokenizer = _absolute_model(recipe.tokenization.tokenizer, folder)
    changes["tokenization"] = recipe.tokenization.model_copy(update={"tokenizer": tokenizer})
    return recipe.model_copy(update=changes)


def _absolute_source(source: SourceConfig, folder: Path) -> SourceConfig:
    files = tuple(glob if "://" in glob else str(folder / Path(glob).expanduser()) for glob in source.files)
    return source.model_copy(update={"files": files})


def _absolute_model(reference: str, folder: Path) -> str:
    """A folder beside the recipe, an absolute path, another recipe; all else is a Hub id."""
    if reference.startswith(RECIPE_REFERENCE):
        return RECIPE_REFERENCE + str((folder / reference.removeprefix(RECIPE_REFERENCE)).resolve())
    local = folder / Path(reference).expanduser()
    if reference and (reference.startswith((".", "/", "~")) or local.exists()):
        return str(local.resolve())
    return reference
