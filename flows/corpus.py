"""build_corpus: source shards in, packed sequences out, until the largest milestone is filled.

One task a shard and stage. What stands in the store is not submitted at all. Up to `workers` shards are on
their way at once: their stages up to the signatures run side by side, dedup takes them in source order,
tokenization and packing run side by side again. A new shard is begun only while those packed, and those on
their way at the rate of the packed ones, do not fill the budget: few are computed beyond it, never more than
`workers`.

A failed shard is never skipped. The shards behind it that the budget is expected to need are still fetched,
filtered and signed, then wait; what a run yields does not depend on luck.
"""

import contextlib
import logging
import queue
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate

from prefect import flow
from prefect.futures import PrefectFuture

from flows.adoption import build_adopted
from flows.chain import DOMAIN, REPLAY, Chain, ShardNodes, Walk
from flows.milestones import corpus_nodes, replay_nodes
from flows.recipe import Recipe
from flows.replay import replay_in_words, replay_told, too_little_told
from flows.resolve import Resolved, resolve
from flows.server import remember_run
from flows.shown import corpus_shown, show_funnel
from flows.standing import standing
from tasks.dedup.index import INDEXES
from tasks.dedup.task import contamination_shard, dedup_shard, sign_shard
from tasks.download.task import download_shard
from tasks.evaluation.task import read_items
from tasks.filtering.task import filter_shard
from tasks.packing.task import commit_corpus, pack_shard
from tasks.policy import THREADS, NodeTask, node_task
from tasks.runtime.progress import Progress, tell
from tasks.settings import Settings
from tasks.store.errors import BudgetError, DaptError, ResourceError, ShardsFailed, StoreDamaged
from tasks.store.json import JSON
from tasks.store.manifest import Manifest, stands
from tasks.store.tokens import format_tokens
from tasks.tokenization.task import make_tokenizer, tokenize_shard

logger = logging.getLogger(__name__)

TASKS: dict[str, NodeTask] = {
    "download": download_shard,
    "filtering": filter_shard,
    "signatures": sign_shard,
    "benchmarks": read_items,
    "contamination": contamination_shard,
    "dedup": dedup_shard,
    "tokenizer": make_tokenizer,
    "tokenization": tokenize_shard,
    "packing": pack_shard,
}
adopt_shard = node_task("packing", "tasks.packing", build_adopted)
"""Makes an adopted shard that went missing again, from its source files."""
IN_ORDER = frozenset({"dedup"})
"""Stages that take the shards one after another."""
OF_FIRST = {"tokenization": "tokenizer", "contamination": "benchmarks"}
"""Stages that read a node of the first shard, and which."""


@dataclass(slots=True)
class _Shard:
    """A shard on its way."""

    nodes: ShardNodes
    done: dict[str, Manifest] = field(default_factory=dict)
    futures: dict[str, PrefectFuture[JSON]] = field(default_factory=dict)
    """Of this run's tasks, those that a task to come may follow."""
    running: str = ""
    failed: bool = False

    @property
    def next_stage(self) -> str | None:
        return next((stage for stage in self.nodes.nodes if stage not in self.done), None)

    @property
    def waiting(self) -> bool:
        """Whether it goes on, now or later."""
        return not self.failed and self.next_stage is not None

    @property
    def in_line(self) -> bool:
        """Whether it waits for its turn after the shard before it."""
        return self.waiting and not self.running and self.next_stage in IN_ORDER


@dataclass(slots=True)
class _Build:
    """A corpus in the making: which shards are on their way, what was made, what failed.

    What an event costs does not grow with the shards: they are counted as they change, and a shard is looked
    at when it was begun, one of its tasks ended, or what it waited for came to stand.
    """

    resolved: Resolved
    chain: Chain
    shards: list[_Shard] = field(default_factory=list)
    """All that were begun, in order; the first `len(amounts)` are whole."""
    amounts: list[int] = field(default_factory=list)
    """What the whole shards from the first on add to the target."""
    added: int = 0
    """What they add together."""
    done: Counter[str] = field(default_factory=Counter)
    """Shards that have a stage, by stage."""
    expected: int = 0
    """Shards that the target needs, at the rate of those that are whole."""
    ready: deque[_Shard] = field(default_factory=deque)
    """Shards that may have become able to go on."""
    running: int = 0
    """Shards with a task at work."""
    num_waiting: int = 0
    num_in_line: int = 0
    made: list[str] = field(default_factory=list)
    failed: list[JSON] = field(default_factory=list)
    damaged: StoreDamaged | None = None
    finished: "queue.Queue[tuple[_Shard, str, PrefectFuture[JSON]]]" = field(default_factory=queue.Queue)

    def run(self) -> None:
        """Until the corpus is filled, its sources end, or nothing can go on."""
        self._advance()
        while True:
            self._begin_shards()
            if not self.filled:
                self._submit()
            if not self.running:
                if self._begin_shards() == 0:
                    return
                continue
            self._collect()

    @property
    def filled(self) -> bool:
        return self.added >= self.chain.target

    @property
    def waiting(self) -> list[_Shard]:
        return [shard for shard in self.shards[len(self.amounts) :] if shard.waiting]

    @contextlib.contextmanager
    def _changing(self, shard: _Shard) -> Iterator[None]:
        """Count a shard anew after a change."""
        before = (bool(shard.running), shard.waiting, shard.in_line)
        yield
        self.running += bool(shard.running) - before[0]
        self.num_waiting += shard.waiting - before[1]
        self.num_in_line += shard.in_line - before[2]

    def _take(self, shard: _Shard, stage: str, manifest: Manifest) -> None:
        """Note that a node stands."""
        shard.done[stage] = manifest
        self.done[stage] += 1

    def _advance(self) -> None:
        """Follow the whole beginning of the shards as far as it goes now."""
        before = len(self.amounts)
        while len(self.amounts) < len(self.shards):
            shard = self.shards[len(self.amounts)]
            if shard.next_stage is not None:
                break
            shard.futures = _in_order(shard.futures)
            if self.amounts:  # the one before has nobody left to follow it
                self.shards[len(self.amounts) - 1].futures.clear()
            self.amounts.append(self.chain.amount(shard.done))
            self.added += self.amounts[-1]
        if len(self.amounts) > before or not self.expected:
            self.expected = self.chain.expected_shards(len(self.amounts), self.added)

    def _begin_shards(self) -> int:
        """Take on more shards; hits go straight to the end of what stands."""
        begun = 0
        while len(self.shards) < len(self.chain.shards) and not self.filled:
            # behind a failure those in line will not move in this run
            moving = self.num_waiting - (self.num_in_line if self.failed else 0)
            if moving >= self.resolved.settings.workers:
                break
            if (moving or self.failed) and len(self.shards) >= self.expected:
                break
            shard = _Shard(self.chain.shards[len(self.shards)])
            self.shards.append(shard)
            for stage, manifest in standing(self.resolved.store, shard.nodes).items():
                self._take(shard, stage, manifest)
            self.num_waiting += shard.waiting
            self.num_in_line += shard.in_line
            self.ready.append(shard)
            self._advance()
            begun += 1
        return begun

    def _submit(self) -> None:
        while self.ready:
            shard = self.ready.popleft()
            position, stage = shard.nodes.position, shard.next_stage
            if stage is None or shard.running or shard.failed or not self._ready(position, stage):
                continue
            node = shard.nodes.nodes[stage]
            future = (adopt_shard if "adopted" in node.config else TASKS[stage]).submit(
                self.resolved.store.root,
                node.to_json(),
                self._shard_name(shard),
                wait_for=self._upstream(position),  # all done: for the edges of the UI's graph
            )
            with self._changing(shard):
                shard.running = stage
            shard.futures = {**_in_order(shard.futures), stage: future}
            future.add_done_callback(partial(self._finish, shard, stage))

    def _upstream(self, position: int) -> list[PrefectFuture[JSON]]:
        """This run's tasks that a shard's next one follows."""
        shard = self.shards[position]
        found = list(shard.futures.values())[-1:]
        if shard.next_stage in IN_ORDER and position:
            found += [
                f for stage, f in self.shards[position - 1].futures.items() if stage == shard.next_stage
            ]
        return found

    def _finish(self, shard: _Shard, stage: str, future: PrefectFuture[JSON]) -> None:
        self.finished.put((shard, stage, future))

    def _ready(self, position: int, stage: str) -> bool:
        """Whether all that a node reads stands; its own shard's earlier stages do."""
        if stage in IN_ORDER and position and stage not in self.shards[position - 1].done:
            return False
        first = OF_FIRST.get(stage)
        return first not in self.chain.shards[0].nodes or first in self.shards[0].done

    def _wake(self, shard: _Shard, stage: str) -> None:
        """Have those looked at that a stage of a shard lets go on."""
        self.ready.append(shard)
        following = shard.nodes.position + 1
        if stage in IN_ORDER and following < len(self.shards):
            self.ready.append(self.shards[following])
        if stage in OF_FIRST.values():
            self.ready.extend(self.waiting)

    def _shard_name(self, shard: _Shard) -> str:
        return shard.nodes.name if self.chain.corpus == DOMAIN else f"{self.chain.corpus} {shard.nodes.name}"

    def _collect(self) -> None:
        shard, stage, future = self.finished.get()
        with self._changing(shard):
            shard.running = ""
            try:
                manifest = Manifest.from_json(future.result())
                self._require_shared(shard.nodes.nodes[stage].path)
                self._take(shard, stage, manifest)
            except DaptError as err:
                self._fail(shard, stage, err)
                return
            except Exception as err:  # noqa: BLE001 - whatever a shard fails of is told with its name; others go on
                self._fail(shard, stage, DaptError(f"{type(err).__name__}: {err}"))
                return
        self.made.append(shard.nodes.nodes[stage].path)
        self._wake(shard, stage)
        self._advance()
        self._tell(shard, stage)

    def _require_shared(self, path: str) -> None:
        """What a cluster's node says it made must stand here too."""
        store = self.resolved.store
        if self.resolved.settings.task_runner != "threads" and stands(store, path) is None:
            raise ResourceError(
                f"a node of {self.resolved.settings.task_runner} made {path}, which does not stand in "
                f"{store.root} here; all nodes need one store: a folder that they share under this path, or s3://"
            )

    def _fail(self, shard: _Shard, stage: str, err: DaptError) -> None:
        shard.failed = True
        if isinstance(err, StoreDamaged):
            self.damaged = err
        name = self.chain.stage_name(stage)
        self.failed.append({"stage": name, "shard": shard.nodes.name, "error": str(err)})
        logger.error("%s shard %s failed: %s", name, shard.nodes.name, err)

    def _tell(self, shard: _Shard, stage: str) -> None:
        manifest = shard.done[stage]
        done = self.done[stage]
        fields: dict[str, float | str] = {
            "documents": manifest.documents_out,
            "bytes": shard.nodes.text_bytes,
            "seconds": manifest.seconds,
        }
        total = max(done, min(self.expected, len(self.chain.shards)))
        tell(Progress(self.chain.stage_name(stage), shard.nodes.name, done, total, "shards", fields))


def _in_order(futures: dict[str, PrefectFuture[JSON]]) -> dict[str, PrefectFuture[JSON]]:
    """The futures that the shard behind may follow."""
    return {stage: future for stage, future in futures.items() if stage in IN_ORDER}


@flow(
    name="build-corpus",
    flow_run_name="{corpus} corpus of {recipe.name}",
    task_runner=THREADS,
    persist_result=False,
    on_running=[remember_run],
)
def build_corpus(recipe: Recipe, corpus: str = DOMAIN) -> JSON:
    """Build what is missing of a corpus: the domain's, or the general text that is measured or replayed.

    Returns:
        `{"made": [node paths]}`, in the order they were made.

    Raises:
        ShardsFailed: shards failed; `.summary` has `made`, `failed` and `waiting`.
        BudgetError: the sources hold less than the largest milestone asks for, or the general ones less
            than it replays; both numbers are told.
        StoreDamaged: a shard met a file that is not what its manifest says.
    """
    return _built(recipe, corpus)  # by name: a cluster pickles the flow with all that its body names


def _built(recipe: Recipe, corpus: str) -> JSON:
    resolved = resolve(recipe, Settings())
    build = _Build(resolved, resolved.chains[corpus])
    with corpus_shown(recipe, build.chain) as shown:
        build.run()
        INDEXES.clear()  # of no use to what follows, which wants the memory
        _commit_corpora(build)
        if build.made:
            used = bisect_left(list(accumulate(build.amounts)), build.chain.target) + 1  # not those beyond it
            whole = build.shards[: min(used, len(build.amounts))]
            show_funnel(shown, build.chain, [shard.done for shard in whole])
        return _outcome(build)


def _commit_corpora(build: _Build) -> None:
    """The corpora of the milestones that are filled: lists of packed shards, made in no time."""
    chain = build.chain
    walked = Walk([], build.amounts, filled=chain.fills(len(build.amounts), build.added))
    nodes = corpus_nodes(build.resolved, walked) if chain.corpus == DOMAIN else []
    if chain.corpus == REPLAY:
        nodes = replay_nodes(build.resolved, {REPLAY: walked})
        for told in replay_told(build.resolved, {REPLAY: walked}):
            level = logging.WARNING if told["repeats"] > 1 else logging.INFO
            logger.log(level, "%s", replay_in_words(told))
    for node in nodes:
        if stands(build.resolved.store, node.path) is None:
            label = format_tokens(node.reads["budget"])
            commit_corpus(build.resolved.store.root, node.to_json(), label)
            build.made.append(node.path)


def _outcome(build: _Build) -> JSON:
    summary: JSON = {
        "made": build.made,
        "failed": build.failed,
        "waiting": [
            {"stage": build.chain.stage_name(str(s.next_stage)), "shard": s.nodes.name} for s in build.waiting
        ]
        if build.failed
        else [],
    }
    if build.filled:
        return summary
    if build.damaged is not None:
        raise with_summary(build.damaged, summary)
    if build.failed:
        waiting = f"; {len(summary['waiting'])} shards wait for them" if summary["waiting"] else ""
        told = [f"{f['stage']} shard {f['shard']}: {f['error']}" for f in build.failed]
        count = f"{len(told)} shard{'s' * (len(told) > 1)} failed{waiting}; run again to redo just these"
        raise with_summary(ShardsFailed("\n".join([*told, count])), summary)
    if build.chain.fills(len(build.amounts), build.added):
        return summary
    raise with_summary(BudgetError(_too_little(build)), summary)


def _too_little(build: _Build) -> str:
    recipe = build.resolved.recipe
    length, held = recipe.packing.sequence_length, sum(build.amounts)
    if build.chain.corpus == REPLAY:
        return too_little_told(build.resolved, held)
    asked, found = recipe.budget.milestones[-1], held * length
    return (
        f"the sources hold {found:,} tokens in {held:,} sequences of {length} after filtering and dedup, "
        f"the milestone {format_tokens(asked)} asks for {asked:,}; add files or lower budget.milestones. "
        "What was made stands and is used by the next run"
    )


def with_summary(err: DaptError, summary: JSON) -> DaptError:
    """An error that carries what was done before it, for who sums up the run."""
    err.summary = summary
    return err
