"""The budget on a server: a Prefect variable that holds a recipe's milestones (`400M,1B`).

Whoever runs a deployed recipe reads it at the start, so of two changes in a row the later run sees both, and
finds the first one's work standing. A budget only ever grows: `dapt budget` appends.
"""

from collections.abc import Sequence
from typing import Any

import httpx
from prefect.exceptions import PrefectException
from prefect.settings import PREFECT_API_URL
from prefect.variables import Variable
from pydantic import ValidationError

from flows.recipe import Recipe
from tasks.store.errors import DaptError, RecipeError
from tasks.store.tokens import format_tokens, parse_tokens


def variable_of(recipe_name: str) -> str:
    """The name of a recipe's variable: letters, digits and underscores are all that Prefect takes."""
    return f"dapt_{recipe_name.replace('-', '_')}_budget"


def written(milestones: Sequence[int]) -> str:
    """Milestones as the variable holds them: `400M,1B`."""
    return ",".join(map(format_tokens, milestones))


def milestones_of(value: Any) -> list[int]:
    """The milestones in a variable's value: `400M,1B`, a list of amounts, or one.

    Raises:
        ValueError: it holds something else.
    """
    amounts = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else [value]
    return [parse_tokens(amount) for amount in amounts]


def read_budget(variable: str) -> list[int] | None:
    """The milestones that a variable holds, None where there is no such variable.

    Raises:
        DaptError: it holds something else.
    """
    value: Any = Variable.get(variable)
    if value is None:
        return None
    try:
        return milestones_of(value)
    except ValueError as err:
        raise DaptError(
            f"the Prefect variable {variable} holds {value!r}: {err}; expected milestones such as 400M,1B"
        ) from err


def with_budget(recipe: Recipe, milestones: Sequence[int], *, source: str) -> Recipe:
    """A recipe with other milestones, checked like one that was read.

    Args:
        recipe: as it is.
        milestones: what its budget is to be.
        source: where they come from, for the error.

    Raises:
        RecipeError: they do not grow, or one adds less than a batch.
    """
    body = {**recipe.model_dump(mode="json"), "budget": {"milestones": list(milestones)}}
    try:
        return Recipe.model_validate(body)
    except ValidationError as err:
        told = "; ".join(error["msg"].removeprefix("Value error, ") for error in err.errors())
        raise RecipeError(f"{source}: {told}") from err


def at_server_budget(recipe: Recipe) -> tuple[Recipe, str]:
    """A recipe at the budget that its server (PREFECT_API_URL) holds, where that goes on from its own.

    Returns:
        The recipe, and what there is to tell; empty where its own milestones hold.
    """
    if not PREFECT_API_URL.value():
        return recipe, ""
    variable, own = variable_of(recipe.name), recipe.budget.milestones
    try:
        held = read_budget(variable)
    except (httpx.HTTPError, PrefectException) as err:
        return (
            recipe,
            f"the Prefect server does not tell of {variable}, the recipe's own budget holds ({err})",
        )
    if held is None or set(held) <= set(own):
        return recipe, ""
    if not set(own) <= set(held):
        return (
            recipe,
            f"{variable} on the server holds {written(held)}, the recipe {written(own)}: that holds",
        )
    told = f"the budget is {written(held)} (Prefect variable {variable})"
    return with_budget(recipe, held, source=f"the Prefect variable {variable}"), told


def add_milestone(recipe: Recipe, amount: str) -> tuple[list[int], list[int]]:
    """Append a milestone to a recipe's variable.

    Args:
        recipe: whose budget.
        amount: the tokens, as people write them.

    Returns:
        The milestones before and after; equal when it was there already.

    Raises:
        RecipeError: it is no amount, smaller than what is there, or does not fit the recipe.
        DaptError: there is no variable.
    """
    variable = variable_of(recipe.name)
    try:
        tokens = parse_tokens(amount)
    except ValueError as err:
        raise RecipeError(str(err)) from err
    while True:
        before = read_budget(variable)
        if before is None:
            raise DaptError(
                f"there is no Prefect variable {variable} on the server; `dapt deploy RECIPE` makes it"
            )
        if tokens in before:
            return before, before
        if before and tokens < before[-1]:
            raise RecipeError(
                f"{format_tokens(tokens)} is smaller than the {format_tokens(before[-1])} that the budget "
                f"holds already ({written(before)}); a budget grows, and nothing that stands is deleted. For "
                f"a milestone in between edit {variable} by hand: those behind it are then trained anew"
            )
        after = with_budget(recipe, [*before, tokens], source=variable).budget.milestones
        Variable.set(variable, written(after), overwrite=True)
        if tokens in (read_budget(variable) or []):  # else somebody else wrote in between
            return before, after
