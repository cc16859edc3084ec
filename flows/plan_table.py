"""A plan for a person: a line a stage, what misses and why, the totals, the memory it needs."""

from collections import Counter

from rich.console import Console
from rich.table import Table

from flows.replay import replay_in_words
from tasks.store.json import JSON
from tasks.store.tokens import size_told
from tasks.training.strategy import memory_told


def print_plan(plan: JSON, console: Console) -> None:
    """The plan for a person: a line a stage, what misses and why, the totals."""
    table = Table(title=f"plan of {plan['recipe']}", title_justify="left")
    for column in ("stage", "stand", "to make", "why"):
        table.add_column(column, justify="right" if column in ("stand", "to make") else "left")
    stages: dict[str, list[JSON]] = {}
    for node in plan["nodes"]:
        stages.setdefault(node["stage"], []).append(node)
    for stage, nodes in stages.items():
        states = Counter(node["state"] for node in nodes)
        reasons = Counter(node["reason"] for node in nodes if node["reason"])
        told = "; ".join(f"{reason} ({n})" if n > 1 else reason for reason, n in reasons.most_common(3))
        drift = f" ({states['DRIFT']} DRIFT)" if states["DRIFT"] else ""
        about = "~" if any(n["estimated"] for n in nodes if n["state"] == "MISS") else ""
        missing = f"{about}{states['MISS']}" if states["MISS"] else "0"
        table.add_row(stage, f"{states['HIT'] + states['DRIFT']}{drift}", missing, told)
    console.print(table)
    totals, memory = plan["totals"], plan["memory"]
    console.print(
        f"{totals['hit']} nodes stand, {totals['miss']} to make: "
        f"read {size_told(totals['bytes_to_read'])}, "
        f"make about {totals['tokens_to_make']:,} tokens, {size_told(totals['disk_bytes'])} on disk, "
        f"about {totals['seconds']:,.0f} s",
        highlight=False,
    )
    _print_memory(memory, console)
    pool = plan.get("pool")
    if pool:
        told = f"trainings and evaluations go to the pool {pool['name']}"
        console.print(f"{told}: {pool['idle'] or 'a worker is on line'}", highlight=False, soft_wrap=True)
    for told in plan.get("replay", []):
        console.print(replay_in_words(told), highlight=False)
    if any(node["estimated"] for node in plan["nodes"]):
        console.print(
            "~ an estimate: how many shards fill the budget is known once they are packed", highlight=False
        )


def _print_memory(memory: JSON, console: Console) -> None:
    """What a rank needs as it is asked for, then by each profile."""
    may = ""
    if "auto" in memory:
        least = memory["auto"][-1]
        may = f" where it fits, else down to {size_told(least['device_bytes'])} by {least['strategy']}"
    console.print(
        f"memory a rank, {memory['strategy']}: {memory_told(memory)}{may}; "
        f"{memory['parameters']:,} parameters, {memory['micro_batch']} sequences at once",
        highlight=False,
    )
    for name, need in memory["profiles"].items():
        console.print(
            f"profile {name}, {need['strategy']}: {memory_told(need)}, {need['compute']} passes a token",
            highlight=False,
        )
