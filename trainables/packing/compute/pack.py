"""The pack: trials join, step together over one base, and leave, each as if it were alone.

Shapes: K slots.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel

from trainables.config import Hyperparameters, TrainingSettings, TrialConfig
from trainables.data.batches import Batches
from trainables.data.tokens import Example
from trainables.models.base_model import DTYPES
from trainables.models.memory import is_out_of_memory
from trainables.packing.compute.adapters import Adapters
from trainables.packing.compute.model import PackedModel
from trainables.packing.compute.optimizer import PackedAdamW, SlotUpdate
from trainables.packing.compute.packed_batch import (
    MicroBatch,
    PackedBatch,
    pack_batch,
    shape_of,
    split_by_size,
)
from trainables.packing.compute.pass_runner import PassRunner
from trainables.packing.compute.pass_shapes import Rounding
from trainables.packing.compute.peft_format import (
    SlotState,
    initial_weights,
    read_adapter,
    read_slot,
    write_slot,
)
from trainables.packing.compute.slot import Slot, StepResult, compute_scaling
from trainables.packing.compute.transfer import Staging

LAUNCH_BOUND_FLOP = 1e14
"""Passes of fewer products are captured: a GPU does them sooner than a CPU launches them one by one
(0.1 s for a decoder of 36 layers). Larger ones would only be filled up for it, and hold memory."""


class _LaunchedStep(NamedTuple):
    """A step that the device was given, and whose numbers nobody has read yet."""

    slots: Mapping[int, Slot]
    updates: Mapping[int, SlotUpdate]
    numbers_2K: Tensor
    """Losses and gradients' norms."""


class Pack:
    """K slots over one frozen base.

    Args:
        base: from load_base; its type of compute is the pack's.
        num_slots: K.
        max_rank: the largest rank that a trial may have.
        max_tokens: of one pass; a step takes as many passes as it needs. No trial's numbers depend
            on it, but for rounding.
        is_dequantised: keep the base's weights in the compute type instead of NF4.
        is_checkpointed: keep only the blocks' inputs of a pass, and compute the rest again.
        is_fast: compile and capture CUDA graphs; for a GPU.
    """

    def __init__(
        self,
        base: PreTrainedModel,
        num_slots: int,
        max_rank: int,
        max_tokens: int,
        is_dequantised: bool = True,
        is_checkpointed: bool = False,
        is_fast: bool = False,
    ) -> None:
        self._config = base.config
        self._max_tokens = max_tokens
        self._is_fast = is_fast
        self.adapters = Adapters(base.config, num_slots, max_rank, base.device)
        self.model = PackedModel(base, self.adapters, is_dequantised, is_fast, is_checkpointed)
        self._passes = PassRunner(self.model, is_fast)
        self._optimizer = PackedAdamW(self.adapters.params_KP, self.adapters.grads_KP, is_fast)
        self._slots: list[Slot | None] = [None] * num_slots
        self._drawn: dict[tuple[int, tuple[str, ...], int], dict[str, Tensor]] = {}
        self._batches_by_settings: dict[tuple[int, TrainingSettings], Batches] = {}
        self._prepared: tuple[object, list[PackedBatch]] = (None, [])
        self._launched: list[_LaunchedStep] = []
        self.last_tokens = (0, 0)
        """Real tokens and computed tokens of the last call of step."""

    @property
    def is_queued(self) -> bool:
        """Whether steps are only launched, so that the next ones are prepared meanwhile."""
        return self._is_fast

    def free_slots(self) -> list[int]:
        """Slots that a trial may join."""
        return [index for index, slot in enumerate(self._slots) if slot is None]

    def join(self, slot: int, trial: TrialConfig, examples: Sequence[Example]) -> None:
        """Start a trial in a free slot, on these training rows."""
        params = trial.params
        # PEFT takes seconds to draw a large model's; trials that differ elsewhere share them.
        key = (params.lora_rank, params.target_modules, trial.settings.seed)
        if key not in self._drawn:
            self._drawn[key] = initial_weights(self._config, params, trial.settings.seed)
        state = SlotState(weights=self._drawn[key], exp_avg={}, exp_avg_sq={}, step=0)
        self._occupy(slot, trial, examples, state)

    def restore(
        self, slot: int, trial: TrialConfig, examples: Sequence[Example], folder: Path
    ) -> int:
        """Go on with a saved trial in a free slot; the number of steps it has done."""
        state = read_slot(folder, trial.params)
        self._occupy(slot, trial, examples, state)
        return state.step

    def save(self, slot: int, folder: Path, staging: Staging | None = None) -> None:
        """Write a slot's adapter in PEFT's format, with what is needed to go on exactly.

        Several threads may save, each with a staging of its own, as long as no step is made and
        nobody joins or leaves the slot.

        Args:
            staging: the caller's, from make_staging; one for this call if not given.
        """
        occupant = self._require_trial(slot)
        params = occupant.trial.params
        staging = staging or self.make_staging()
        weights, exp_avg, exp_avg_sq = (
            self.adapters.views(row_P, params.lora_rank, params.target_modules)
            for row_P in staging.on_host(self._get_slot_rows(slot))
        )
        state = SlotState(
            weights=weights, exp_avg=exp_avg, exp_avg_sq=exp_avg_sq, step=occupant.step
        )
        model = occupant.trial.settings.model
        write_slot(folder, state, params, model, self.adapters.linear_layers)

    def make_staging(self) -> Staging:
        """Room on the host for what save writes, for one thread."""
        return Staging(self._get_slot_rows(0))

    @property
    def slot_bytes(self) -> int:
        """Bytes of a slot's weights and moments."""
        return sum(row.nbytes for row in self._get_slot_rows(0))

    def leave(self, slot: int) -> None:
        """Free a slot."""
        self._require_trial(slot)
        self._slots[slot] = None
        self._prepared = (None, [])
        self._clear(slot)

    def seek(self, slot: int, step: int) -> None:
        """Let a slot go on as if it had done so many steps, to measure one that is yet to come."""
        self._require_trial(slot).step = step

    def step(self, most: int = 1) -> list[StepResult]:
        """Make so many optimizer steps of every slot that has them to make.

        All are launched to the device before the first is read: what the CPU prepares for the later
        ones, such as the capture of a CUDA graph, costs a GPU that is at work no time.

        Returns:
            A result for each step of each slot, step by step and in the order of the slots; none
            behind that in which a slot failed. Fewer steps if the memory ran out on the way.

        Raises:
            torch.OutOfMemoryError: in the first step; see use_less_memory.
        """
        num_real = num_computed = 0
        for _ in range(most):
            training = self._find_training_slots()
            if not training:
                break
            try:
                packed_batches = self._launch_step(training)
            except RuntimeError as error:
                self._clear_gradients()
                if not (self._launched and is_out_of_memory(error)):
                    raise
                break  # the next call begins with this step
            num_real += sum(packed.num_real for packed in packed_batches)
            num_computed += sum(packed.shape.num_tokens for packed in packed_batches)
        self.last_tokens = (num_real, num_computed)
        self._prepare_next_step()
        return self._read_results()

    @property
    def num_captured(self) -> int:
        """CUDA graphs that were captured so far."""
        return self._passes.num_captured

    @contextmanager
    def hold_adapters(self, adapters: Sequence[Path | None]) -> Iterator[list[int]]:
        """Slots that hold saved adapters to be scored, not trained; None is the untuned base.

        Raises:
            ValueError: fewer slots are free than adapters are given.
        """
        slots = self.free_slots()[: len(adapters)]
        if len(slots) < len(adapters):
            raise ValueError(f"{len(slots)} slots are free; it must be {len(adapters)} at least")
        try:
            for slot, folder in zip(slots, adapters, strict=True):
                self._clear(slot)
                if folder is not None:
                    weights, params = read_adapter(folder)
                    self._fill(self.adapters.params_KP, slot, params, weights)
                    self.adapters.set_scaling(slot, compute_scaling(params), params.target_modules)
            yield slots
        finally:
            for slot in slots:
                self._clear(slot)

    def get_batches(self, slot: int) -> Batches:
        """The training rows of a slot's trial, step by step, with their tokens and epochs."""
        return self._require_trial(slot).batches

    def use_less_memory(self) -> bool:
        """Halve the passes after step ran out of memory; False if each holds one row already.

        The steps that were not finished begin again. No trial's numbers change, but for rounding.
        """
        self._clear_gradients()
        self._passes.forget()
        self._prepared = (None, [])
        longest = max((slot.batches.longest for slot in self._slots if slot is not None), default=0)
        if self._max_tokens <= longest:
            return False
        self._max_tokens = max(longest, self._max_tokens // 2)
        return True

    def _find_training_slots(self) -> dict[int, Slot]:
        """The slots that have a step to make."""
        slots = enumerate(self._slots)
        return {index: slot for index, slot in slots if slot is not None and slot.is_training}

    def _launch_step(self, training: Mapping[int, Slot]) -> list[PackedBatch]:
        """Give the device the next step of these slots; its passes."""
        packed_batches = self._pack_batches(training)
        for packed in packed_batches:
            self._passes.run(packed)
        updates = {index: slot.make_update() for index, slot in training.items()}
        by_slot = [updates.get(index) for index in range(len(self._slots))]
        numbers_2K = self._optimizer.step(by_slot, self._passes.losses_K)
        self._launched.append(_LaunchedStep(training, updates, numbers_2K))
        for slot in training.values():
            slot.step += 1
        return packed_batches

    def _prepare_next_step(self) -> None:
        """Make the next step's passes, while a GPU is still at work on those before."""
        training = self._find_training_slots()
        if not training:
            return
        try:
            for packed in self._pack_batches(training):
                self._passes.prepare(packed.shape)
        except RuntimeError as error:  # the step itself raises it, once those before it are read
            if not is_out_of_memory(error):
                raise

    def _read_results(self) -> list[StepResult]:
        """The results of the launched steps; waits for the device."""
        launched, self._launched = self._launched, []
        if not launched:
            return []
        numbers = torch.stack([launch.numbers_2K.T for launch in launched]).tolist()
        return [
            slot.make_result(index, launch.updates[index], *of_step[index])
            for launch, of_step in zip(launched, numbers, strict=True)
            for index, slot in launch.slots.items()
            if not slot.has_failed
        ]

    def _clear_gradients(self) -> None:
        """Drop what an unfinished step has gathered."""
        self.adapters.grads_KP.zero_()
        self._passes.losses_K.zero_()

    def _pack_batches(self, training: Mapping[int, Slot]) -> list[PackedBatch]:
        """The passes of the next step: micro-batches that go through the model together."""
        key = tuple((index, id(slot), slot.step) for index, slot in training.items())
        if key != self._prepared[0]:
            most = self._max_tokens
            parts = [part for k, slot in training.items() for part in slot.split_step(k, most)]
            groups = split_by_size(parts, [part.num_tokens for part in parts], most)
            self._prepared = (key, [self._pack(group) for group in groups])
        return self._prepared[1]

    def _pack(self, micro_batches: Sequence[MicroBatch]) -> PackedBatch:
        wanted = shape_of(micro_batches, len(self._slots), self._choose_rounding(micro_batches))
        return pack_batch(micro_batches, self._passes.choose_shape(wanted))

    def _choose_rounding(self, micro_batches: Sequence[MicroBatch]) -> Rounding:
        if not self._is_fast:
            return "exact"
        # Forward, and backward to the inputs alone: 2 operations a weight and token each.
        num_tokens = sum(micro_batch.num_tokens for micro_batch in micro_batches)
        flop = 4 * self.model.num_weights * num_tokens
        return "recurring" if flop < LAUNCH_BOUND_FLOP else "fine"

    def _occupy(
        self, slot: int, trial: TrialConfig, examples: Sequence[Example], state: SlotState
    ) -> None:
        params = trial.params
        if self._slots[slot] is not None:
            raise ValueError(f"slot {slot} is taken; it must be free")
        if params.lora_rank > self.adapters.max_rank:
            rule = f"at most the pack's max_rank ({self.adapters.max_rank})"
            raise ValueError(f"lora_rank is {params.lora_rank}; it must be {rule}")
        compute_dtype = trial.settings.compute_dtype
        if DTYPES[compute_dtype] != self.model.dtype:
            rule = f"that of the pack's base ({self.model.dtype})"
            raise ValueError(f"compute_dtype is {compute_dtype!r}; it must be {rule}")
        self._clear(slot)
        self._fill(self.adapters.params_KP, slot, params, state.weights)
        self._fill(self._optimizer.exp_avg_KP, slot, params, state.exp_avg)
        self._fill(self._optimizer.exp_avg_sq_KP, slot, params, state.exp_avg_sq)
        self.adapters.set_scaling(slot, compute_scaling(params), params.target_modules)
        # Trials of one sweep share their batches; to order the rows takes longer than to join.
        key = (id(examples), trial.settings)  # batches keep the examples alive, so the id is theirs
        if key not in self._batches_by_settings:
            self._batches_by_settings[key] = Batches(examples, trial.settings)
        self._slots[slot] = Slot(trial, self._batches_by_settings[key], state.step)

    def _fill(
        self, rows_KP: Tensor, slot: int, params: Hyperparameters, values: dict[str, Tensor]
    ) -> None:
        """Give a slot these values, by PEFT's names, in one copy: a GPU takes one for each of some
        hundred tensors as long as for a large one."""
        if not values:
            return
        row_P = torch.zeros(rows_KP.shape[1], dtype=rows_KP.dtype, pin_memory=rows_KP.is_cuda)
        views = self.adapters.views(row_P, params.lora_rank, params.target_modules)
        for name, value in values.items():
            views[name].copy_(value)
        rows_KP[slot].copy_(row_P)

    def _get_slot_rows(self, slot: int) -> list[Tensor]:
        """A slot's weights and both moments, each in one piece."""
        moments = (self._optimizer.exp_avg_KP, self._optimizer.exp_avg_sq_KP)
        return [kind_KP[slot] for kind_KP in (self.adapters.params_KP, *moments)]

    def _clear(self, slot: int) -> None:
        self.adapters.params_KP[slot].zero_()
        self.adapters.set_scaling(slot, 0.0, ())
        self._optimizer.clear(slot)
        self._passes.losses_K[slot] = 0.0

    def _require_trial(self, slot: int) -> Slot:
        occupant = self._slots[slot]
        if occupant is None:
            raise ValueError(f"slot {slot} is free; it must hold a trial")
        return occupant
