"""One run of a recipe: data, features, stages, validation, the best bundle, the report."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import safetensors.torch
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import InitProcessGroupKwargs

from capsmith.data.manifest import Manifest, Photo
from capsmith.data.watch import Watch, unwatched
from capsmith.errors import ConfigError
from capsmith.export.captioner import caption_room
from capsmith.models.freed_memory import keep_freed_memory
from capsmith.runtime.constraints import resolve_limits
from capsmith.training import checkpoint
from capsmith.training.assembly import Assembly, assemble, put_together
from capsmith.training.batches import Batches, Inputs
from capsmith.training.beside import losses_beside, tokenise_texts
from capsmith.training.best import COMPARED, BestBundle
from capsmith.training.checkpoint import Standing
from capsmith.training.config import Recipe
from capsmith.training.examples import Examples, Order, thirds, tokenise, with_details
from capsmith.training.inputs import Photos, prepare, training_inputs, validation_inputs
from capsmith.training.loop import Stage, StageRun
from capsmith.training.objectives import (
    CaptionObjective,
    RewardObjective,
    Spoken,
    rewarded,
)
from capsmith.training.own_words import keep_to_own_words
from capsmith.training.report import Metrics, draw_curves
from capsmith.training.schedule import Schedule
from capsmith.training.splits import read_splits
from capsmith.training.start import Start, open_start
from capsmith.training.validation import Validator
from capsmith.training.watching import Desk, Log, Watching

_BEFORE_A_RUN = ("data.jsonl", "features", "logs")
"""What a run's folder may hold before its recipe is in it."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended: the best bundle and its CIDEr on the validation photos."""

    bundle: Path
    best: float
    best_step: int


def train(
    recipe: Recipe, output: Path, *, base: Path, log: Log, watch: Watch = unwatched
) -> Outcome:
    """Train a recipe into the folder `output`, or go on where an earlier process stopped there.

    base: the folder that the recipe's paths are relative to. Raises `ConfigError` where the folder
    holds a run of another recipe, and what data, encoder, tokenizer and language model raise.
    """
    _refuse_foreign(output)
    keep_freed_memory()
    train_set, validation_set = read_splits(recipe.data, base)
    start = open_start(recipe, base)
    tracker = _tracker(recipe, output)
    if not tracker.is_main_process:
        log = _say_nothing
    with tracker.main_process_first():
        assembly = _begin(recipe, output, train_set, start, base)
    photos = prepare(
        assembly, train_set.photos, validation_set.photos,
        base=base, output=output, log=log, watch=watch,
    )  # fmt: skip
    for reason in photos.unreadable:
        log(f"left out: {reason}")
    train_set = replace(train_set, photos=photos.train)
    run = _Run(assembly, output, log, tracker, photos, train_set, base=base)
    return run.all_stages()


def _refuse_foreign(output: Path) -> None:
    """Raise `ConfigError` for a folder with other things in it, or a file."""
    if output.exists() and not output.is_dir():
        raise ConfigError(f"{output}: is a file; choose a folder for the run")
    if not output.exists() or checkpoint.is_run(output):
        return
    strange = [path.name for path in output.iterdir() if path.name not in _BEFORE_A_RUN]
    if strange:
        raise ConfigError(
            f"{output}: is no run of capsmith train and holds {strange[0]}; choose a new folder"
        )


def _tracker(recipe: Recipe, output: Path) -> Accelerator:
    """What knows the processes, and writes for TensorBoard and others."""
    if recipe.training.precision == "fp16" and not torch.cuda.is_available():
        raise ConfigError("training.precision: fp16 needs a GPU; use bf16 or float32")
    AcceleratorState._reset_state()  # another run in this process may have had another precision
    # The others wait while the main process encodes photos, validates and exports.
    patience = InitProcessGroupKwargs(timeout=timedelta(days=1))
    try:
        return Accelerator(
            log_with="all", project_dir=output, mixed_precision=_precision(recipe),
            kwargs_handlers=[patience],
        )  # fmt: skip
    except ValueError as error:
        raise ConfigError(f"training.precision: {recipe.training.precision}: {error}") from None


def _precision(recipe: Recipe) -> str:
    precision = recipe.training.precision
    return "no" if precision == "float32" else precision


def _say_nothing(_line: str) -> None:
    """The log of processes beside the main one."""


def _begin(
    recipe: Recipe, output: Path, train_set: Manifest, start: Start | None, base: Path
) -> Assembly:
    """The captioner of a new run, or with the tokens of one that is there.

    Its first weights are the same in both, as a run may be stopped before its first checkpoint.
    """
    torch.manual_seed(recipe.training.seed)
    recipe = start.complete(recipe) if start else recipe
    if checkpoint.is_run(output):
        known = checkpoint.read_run(output)
        if known.recipe != recipe:
            raise ConfigError(
                f"{output}: holds a run of another recipe, or of other settings; choose a new"
                " --output, or delete it"
            )
        assembly = put_together(recipe, known.tokens, base=base)
    elif start:
        assembly = put_together(recipe, start.tokens(), base=base)
    else:
        assembly = assemble(recipe, train_set, base=base)
    if start:
        start.fill(assembly.model)
    checkpoint.write_run(output, recipe, assembly.tokens, base)
    return assembly


class _Run:
    def __init__(
        self, assembly: Assembly, output: Path, log: Log, tracker: Accelerator, photos: Photos,
        train_set: Manifest, *, base: Path,
    ):  # fmt: skip
        self.assembly, self.output, self.log = assembly, output, log
        self.recipe, self.model = assembly.recipe, assembly.model
        self.photos, self.train_set = photos, train_set
        examples = _tokenised(assembly, photos.train)
        self.bounds = thirds(examples) if assembly.tokens.details else {}
        self.examples = with_details(examples, self.bounds)
        self.texts = tokenise_texts(
            train_set.texts if self.recipe.beside.texts else (), assembly.tokens,
            max_tokens=self.recipe.data.max_tokens, bounds=self.bounds,
        )  # fmt: skip
        captions = [(line.language, line.ids) for line in examples.lines]
        captions += [(text.language, text.ids) for text in self.texts]
        self.words = keep_to_own_words(self.model, captions)
        # A captioner that training goes on from may speak more languages than the data has.
        found = {line.language for line in examples.lines}
        self.spoken = [name for name in assembly.tokens.spoken if name in found]
        validator = Validator(
            with_details(_tokenised(assembly, photos.validation), self.bounds),
            validation_inputs(assembly, photos),
            assembly.description,
            output / "tokenizer.json",
            languages=self.spoken,
            photos=self.recipe.validation.photos,
        )
        tracker.init_trackers("logs")
        best = BestBundle(
            assembly,
            train_set,
            output,
            validator.features(self.model.eval(), COMPARED),
            base=base,
        )
        self.metrics = Metrics(output / "metrics.jsonl", writes=tracker.is_main_process)
        self.desk = Desk(output, log, self.metrics, tracker, validator, best)
        self.found = checkpoint.latest(output)
        self.metrics.keep_until(self._done())

    def all_stages(self) -> Outcome:
        """Both stages, those that are not done yet."""
        standing = self._stage(self._captions(), first=Standing(stage="captions", step=0))
        if self.recipe.self_critical.steps:
            with self.desk.tracker.main_process_first():
                path = checkpoint.first_stage(self.output)
            best = safetensors.torch.load_file(path)
            self.model.load_state_dict(best)
            first = Standing(
                stage="reward", step=0, best=standing.best, best_step=standing.best_step
            )
            standing = self._stage(
                self._reward(), first=first, first_stage=best,
                share=self.recipe.self_critical.blend,
            )  # fmt: skip
        if self.desk.tracker.is_main_process:
            draw_curves(self.metrics.rows, self.output / "curves.png", title=self.recipe.name)
        self.desk.tracker.end_training()
        return Outcome(self.desk.best.folder, standing.best, standing.best_step)

    def _stage(
        self, stage: Stage, *, first: Standing,
        first_stage: dict[str, torch.Tensor] | None = None, share: float = 1.0,
    ) -> Standing:  # fmt: skip
        validation = self.recipe.validation
        accelerator = Accelerator(
            mixed_precision=_precision(self.recipe), gradient_accumulation_steps=stage.accumulate
        )
        standing = first
        run = StageRun(stage, accelerator)
        if self.found is not None:
            folder, known = self.found
            if checkpoint.STAGES.index(known.stage) > checkpoint.STAGES.index(stage.name):
                return replace(first, best=known.best, best_step=known.best_step, is_finished=True)
            if known.stage == stage.name:
                accelerator.load_state(str(folder / "state"))
                standing = known
                self.log(f"going on at step {known.step} of {stage.name}")
        every = validation.every or stage.batches.order.steps_per_epoch // stage.accumulate
        watching = Watching(
            self.desk, run, self.model, validation, standing, max(1, every),
            first_stage or {}, share,
        )  # fmt: skip
        if self.recipe.start and stage.name == "captions" and standing.step == 0:
            watching.look_first()
        if not standing.is_finished:
            run.run(watching)
        return watching.standing

    def _captions(self) -> Stage:
        training = self.recipe.training
        inputs = training_inputs(self.assembly, self.photos)
        order = Order(
            self.examples, batch=training.batch, captions_a_photo=training.captions_a_photo,
            seed=training.seed,
        )  # fmt: skip
        steps = training.steps or training.epochs * max(
            1, order.steps_per_epoch // training.accumulate
        )
        return Stage(
            name="captions",
            objective=CaptionObjective(
                self.model,
                label_smoothing=training.label_smoothing,
                beside=losses_beside(self.assembly, self.examples, self.texts, self.words),
                words=self.words,
            ),
            batches=self._batches(order, inputs),
            steps=steps,
            learning_rate=training.learning_rate,
            schedule=Schedule(steps=steps, warmup=training.warmup, shape=training.schedule),
            average=training.average,
            accumulate=training.accumulate,
            clip=training.clip,
            weight_decay=training.weight_decay,
            betas=training.betas,
            encoder=self.model.encoder,
            encoder_pace=training.encoder_pace,
            seed=training.seed,
            workers=self.recipe.features.workers,
        )

    def _reward(self) -> Stage:
        settings, training = self.recipe.self_critical, self.recipe.training
        objective = RewardObjective(
            self.model, spoken=[self._rewarded(name) for name in self.spoken],
            captions=settings.captions,
        )  # fmt: skip
        order = Order(
            self.examples, batch=settings.batch, captions_a_photo=1, seed=training.seed + 1
        )
        return Stage(
            name="reward",
            objective=objective,
            batches=self._batches(order, training_inputs(self.assembly, self.photos)),
            steps=settings.steps,
            learning_rate=settings.learning_rate,
            schedule=Schedule(steps=settings.steps, warmup=20, shape="cosine"),
            average=settings.average,
            clip=training.clip,
            weight_decay=training.weight_decay,
            betas=training.betas,
            seed=training.seed + 1,
            workers=self.recipe.features.workers,
        )

    def _rewarded(self, language: str) -> Spoken:
        rules, _ = resolve_limits(
            None, language, bundle=self.assembly.description,
            tokenizer=self.desk.validator.tokenizer,
        )  # fmt: skip
        times = self.recipe.self_critical.languages.get(language, 1.0)
        return rewarded(
            self.examples, language, rules, stop=self.model.end_token, times=times,
            words=self.words.tokens.get(language),
        )  # fmt: skip

    def _batches(self, order: Order, inputs: Inputs) -> Batches:
        tracker = self.desk.tracker
        return Batches(
            order, inputs, self.model, process=tracker.process_index,
            processes=tracker.num_processes,
        )  # fmt: skip

    def _done(self) -> dict[str, int]:
        """Steps of each stage that the newest checkpoint holds."""
        if self.found is None:
            return {}
        standing = self.found[1]
        everything = {"captions": 1 << 60} if standing.stage == "reward" else {}
        return {**everything, standing.stage: standing.step}


def _tokenised(assembly: Assembly, photos: tuple[Photo, ...]) -> Examples:
    return tokenise(
        photos,
        assembly.tokens,
        max_tokens=assembly.recipe.data.max_tokens,
        positions=caption_room(assembly.model, assembly.description.prefix.rows),
    )
