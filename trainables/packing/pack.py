"""The pack: trials join, step together over one base, and leave, each as if it were alone.

Shapes: K slots, S rows of a slot, T tokens of a row, L labelled positions of a slot.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from trainables.base_model import DTYPES
from trainables.config import Hyperparameters, TrialConfig
from trainables.examples import Example
from trainables.packing.adapters import Adapters
from trainables.packing.batch import Course, assemble, order_key
from trainables.packing.masks import Dropout, make_dropout
from trainables.packing.model import PackedModel
from trainables.packing.optimizer import PackedAdamW, SlotUpdate
from trainables.packing.peft_format import SlotState, initial_weights, read_slot, write_slot
from trainables.packing.slot import Slot, StepResult, scaling
from trainables.packing.transfer import moved


class Pack:
    """K slots over one frozen base.

    Args:
        base: from load_base; its type of compute is the pack's.
        num_slots: K.
        max_rank: the largest rank that a trial may have.
        micro_batch_size: rows of each slot in one forward pass; no trial's numbers depend on it.
        is_dequantised: keep the base's weights in the compute type instead of NF4.
        is_compiled: compile the decoder layer and the optimizer.
    """

    def __init__(
        self,
        base: PreTrainedModel,
        num_slots: int,
        max_rank: int,
        micro_batch_size: int,
        is_dequantised: bool = True,
        is_compiled: bool = False,
    ) -> None:
        self._config = base.config
        self._device = base.device
        self._micro_batch_size = micro_batch_size
        self.adapters = Adapters(base.config, num_slots, max_rank, base.device)
        self.model = PackedModel(base, self.adapters, is_dequantised, is_compiled)
        self._optimizer = PackedAdamW(self.adapters.params_KP, self.adapters.grads_KP, is_compiled)
        self._slots: list[Slot | None] = [None] * num_slots
        self._losses_K = torch.zeros(num_slots, device=base.device)
        self.real_frac = 0.0
        """Real tokens over computed places in the last forward pass."""

    def free_slots(self) -> list[int]:
        """Slots that a trial may join."""
        return [place for place, slot in enumerate(self._slots) if slot is None]

    def join(
        self,
        slot: int,
        trial: TrialConfig,
        examples: Sequence[Example],
        offset: int | None = None,
    ) -> int:
        """Start a trial in a free slot.

        Args:
            slot: the place.
            trial: what to train.
            examples: the training rows; trials given the same object share tokenised rows.
            offset: where in the common order it starts, in steps; None for the place where most
                of the pack's trials with the same order are.

        Returns:
            The offset, which belongs to the trial: it replays exactly from it.
        """
        if offset is None:
            offset = self._present_place(examples, trial)
        settings = trial.settings
        weights = initial_weights(self._config, trial.params, settings.seed)
        state = SlotState(weights=weights, exp_avg={}, exp_avg_sq={}, step=0, offset=offset)
        self._place(slot, trial, examples, state)
        return offset

    def restore(
        self, slot: int, trial: TrialConfig, examples: Sequence[Example], folder: Path
    ) -> int:
        """Go on with a saved trial in a free slot; the number of steps it has done."""
        state = read_slot(folder, trial.params)
        self._place(slot, trial, examples, state)
        return state.step

    def save(self, slot: int, folder: Path) -> None:
        """Write a slot's adapter in PEFT's format, with what is needed to go on exactly."""
        held = self._occupied(slot)
        params = held.trial.params
        weights, exp_avg, exp_avg_sq = self._views(slot, params)
        state = SlotState(
            weights=weights,
            exp_avg=exp_avg,
            exp_avg_sq=exp_avg_sq,
            step=held.step,
            offset=held.course.offset,
        )
        write_slot(folder, state, params, held.trial.settings.model)

    def leave(self, slot: int) -> None:
        """Free a slot."""
        self._occupied(slot)
        self._slots[slot] = None
        self._clear(slot)

    def step(self) -> list[StepResult]:
        """Run micro-batches until at least one slot has made an optimizer step.

        Trials with equal batch sizes so stay in step. Results are in the order of the slots;
        there are none if no slot has anything left to train.
        """
        while any(slot is not None and slot.is_training for slot in self._slots):
            self._accumulate()
            updates = [None if slot is None else slot.update() for slot in self._slots]
            if any(updates):
                return self._optimize(updates)
        return []

    def course(self, slot: int) -> Course:
        """The way of a slot's trial through the rows, which counts its tokens and epochs."""
        return self._occupied(slot).course

    def halve_micro_batch(self) -> bool:
        """Make do with less memory after step ran out of it; False if no row can be spared.

        Steps that were not finished begin again. No trial's numbers change.
        """
        if self._micro_batch_size == 1:
            return False
        self._micro_batch_size //= 2
        self.adapters.grads_KP.zero_()
        self._losses_K.zero_()
        for slot in self._slots:
            if slot is not None:
                slot.rows_done = 0
        return True

    def _accumulate(self) -> None:
        """Add one micro-batch of every training slot to its gradient and loss."""
        num_rows = self._micro_batch_size
        parts = [None if slot is None else slot.part(num_rows) for slot in self._slots]
        batch = assemble(parts, num_rows, self._device)
        self.real_frac = batch.real_frac
        losses_K = self.model.losses(
            batch.input_ids_KST,
            batch.label_places_KL,
            batch.targets_KL,
            self._dropout(batch.row_keys_KS2),
        )
        losses_K = losses_K * batch.label_weights_K
        losses_K.sum().backward()  # type: ignore[no-untyped-call]
        self._losses_K += losses_K.detach()

    def _optimize(self, updates: list[SlotUpdate | None]) -> list[StepResult]:
        numbers_2K = self._optimizer.step(updates, self._losses_K)
        numbers = zip(*numbers_2K.tolist(), strict=True)
        return [
            slot.finish(place, update, loss, grad_norm)
            for place, (slot, update, (loss, grad_norm)) in enumerate(
                zip(self._slots, updates, numbers, strict=True)
            )
            if slot is not None and update is not None
        ]

    def _dropout(self, row_keys_KS2: Tensor) -> Dropout | None:
        """None, and so a graph without masks, if no slot drops anything."""
        rates = [0.0 if slot is None else slot.trial.params.lora_dropout for slot in self._slots]
        if not any(rates):
            return None
        rates_K = moved(torch.tensor(rates, dtype=torch.float64), self._device)
        return make_dropout(row_keys_KS2, rates_K)

    def _present_place(self, examples: Sequence[Example], trial: TrialConfig) -> int:
        """Where most trials of the same order are; the furthest of such places."""
        key = order_key(examples, trial.settings)
        places = [
            slot.place
            for slot in self._slots
            if slot is not None and slot.is_training and slot.course.order_key == key
        ]
        return max(places, key=lambda place: (places.count(place), place), default=0)

    def _place(
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
        saved = (state.weights, state.exp_avg, state.exp_avg_sq)
        for views, values in zip(self._views(slot, params), saved, strict=True):
            for name, value in values.items():
                views[name].copy_(value)
        self.adapters.set_scaling(slot, scaling(params), params.target_modules)
        course = Course(examples, trial.settings, state.offset)
        self._slots[slot] = Slot(trial, course, state.step)

    def _views(self, slot: int, params: Hyperparameters) -> list[dict[str, Tensor]]:
        """A slot's weights and both moments by PEFT's names."""
        optimizer = self._optimizer
        return [
            self.adapters.views(tensor_KP[slot], params.lora_rank, params.target_modules)
            for tensor_KP in (
                self.adapters.params_KP,
                optimizer.exp_avg_KP,
                optimizer.exp_avg_sq_KP,
            )
        ]

    def _clear(self, slot: int) -> None:
        self.adapters.params_KP[slot].zero_()
        self.adapters.set_scaling(slot, 0.0, ())
        self._optimizer.clear(slot)
        self._losses_K[slot] = 0.0

    def _occupied(self, slot: int) -> Slot:
        held = self._slots[slot]
        if held is None:
            raise ValueError(f"slot {slot} is free; it must hold a trial")
        return held
