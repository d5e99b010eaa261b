"""The Gradio page. Whatever comes from data or a model is shown by components that take it as text:
a Textbox, a Label or a Dataset of texts."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import gradio as gr

from sweeps.publish.demo import HOST
from sweeps.publish.demo.side_by_side import Answer, Example, SideBySide, Values
from trainables.data.conversations import Unusable
from trainables.errors import SweepAborted

TITLE = "Untuned base and tuned model, side by side"
BASE = "Untuned base"
SHOWN_LABELS = 10
SHOWN_CHARACTERS = 120
"""Longest part of an example that the list shows."""
FONTS = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}
"""Fonts of the reader's machine: Gradio's own themes name fonts of Google's."""


@dataclass(frozen=True)
class Turn:
    """One turn of a chat, as each of the two has it."""

    role: str
    base: str
    adapter: str
    is_latest: bool = False
    """Whether it stands in the boxes of the latest answers."""


def make_page(models: SideBySide, examples: Sequence[Example], adapter: str) -> gr.Blocks:
    """The page of a run.

    Args:
        adapter: what the tuned side is called.
    """
    run = models.run
    with gr.Blocks(title=TITLE, analytics_enabled=False) as page:
        gr.Markdown(f"# {TITLE}")
        if run.splits.scoring.kind == "chat":
            _add_chat(models, examples, adapter)
        else:
            _add_form(models, examples, adapter)
        with gr.Accordion("How it is asked", open=False):
            about = {
                "Sweep": str(run.paths.folder),
                "Model": run.settings.model,
                "Prompt, before the chat template": run.splits.prompt_template,
            }
            if run.splits.columns is not None and run.splits.columns.system_prompt:
                about["System prompt"] = run.splits.columns.system_prompt
            for label, text in about.items():
                _show_text(label, text)
    return page


def launch(page: gr.Blocks, port: int | None) -> str:
    """Serves the page to this machine alone and returns its address; nothing is sent elsewhere.

    Args:
        port: None is the first free one from 7860 on.

    Raises:
        SweepAborted: there is none.
    """
    try:
        _, url, _ = page.queue(api_open=True).launch(
            server_name=HOST,
            server_port=port,
            share=False,
            inbrowser=False,
            quiet=True,
            prevent_thread_lock=True,
            show_error=True,
            ssr_mode=False,
            mcp_server=False,
            pwa=False,
            enable_monitoring=False,
            run_history=False,
            footer_links=[],
            theme=gr.themes.Default(**FONTS),
        )
    except OSError as refused:
        raise SweepAborted(f"no page: {refused}", "name a free port: --port N") from None
    return str(url)


def _add_form(models: SideBySide, examples: Sequence[Example], adapter: str) -> None:
    """A box a column, what the two say, and rows to begin with."""
    splits = models.run.splits
    assert splits.columns is not None
    source = splits.columns.prompt[splits.source]
    columns = list(dict.fromkeys([source, *splits.columns.prompt.values()]))
    boxes = [
        gr.Textbox(label=name, lines=6 if name == source else 1, max_lines=20) for name in columns
    ]
    with gr.Row():
        clear = gr.Button("Clear")
        send = gr.Button("Ask both", variant="primary")
    with gr.Row(equal_height=True):
        if splits.scoring.kind == "classify":
            answer_boxes: list[Any] = [
                gr.Label(label=name, num_top_classes=SHOWN_LABELS) for name in (BASE, adapter)
            ]
        else:
            answer_boxes = [_show_text(name, "", lines=6) for name in (BASE, adapter)]
    reference = _show_text("Right answer of the example", "", lines=2)

    def ask(*texts: str) -> list[Any]:
        values = dict(zip(columns, texts, strict=True))
        answers = _ask_models(models, values, values)
        return [a.text if a.probabilities is None else a.probabilities for a in answers]

    def show_example(index: int) -> list[Any]:
        example = examples[index]
        return [*(example.values[name] for name in columns), None, None, example.target]

    targets = {
        tuple(example.values[name] for name in columns): example.target for example in examples
    }
    send.click(ask, boxes, answer_boxes, api_name="ask")
    # not input, which some ways to paste do not raise
    gr.on(
        [box.change for box in boxes],
        lambda *texts: targets.get(texts, ""),
        boxes,
        reference,
        api_visibility="private",
        show_progress="hidden",
    )
    shown = [[example.values[name] for name in columns] + [example.target] for example in examples]
    rows = _list_rows(shown, [*columns, "right answer"])
    rows.click(show_example, rows, [*boxes, *answer_boxes, reference], api_name="show_example")
    clear.click(
        lambda: [*("" for _ in columns), None, None, ""],
        None,
        [*boxes, *answer_boxes, reference],
        api_visibility="private",
    )


def _add_chat(models: SideBySide, examples: Sequence[Example], adapter: str) -> None:
    """Two conversations with the same questions; each has the answers of its own model.

    A Chatbot would show as HTML what a model writes, also without Markdown (gradio 6.31).
    """
    splits = models.run.splits
    assert splits.columns is not None
    column, own_system = splits.columns.prompt[splits.source], splits.columns.system_prompt or ""
    turns = gr.State([])

    @gr.render(inputs=turns)  # type: ignore[untyped-decorator]
    def show_earlier(turns: list[Turn]) -> None:
        for turn in turns:
            if turn.role == "user":
                _show_text("You", turn.base)
            elif turn.role == "assistant" and not turn.is_latest:
                with gr.Row():
                    _show_text(BASE, turn.base)
                    _show_text(adapter, turn.adapter)

    with gr.Row(equal_height=True):
        answer_boxes = [_show_text(name, "", lines=4) for name in (BASE, adapter)]
    message = gr.Textbox(label="Message to both", lines=3, max_lines=12)
    with gr.Row():
        clear = gr.Button("New conversation")
        send = gr.Button("Send", variant="primary")
    reference = _show_text("Right answer of the example", "", lines=2)
    system = _show_text("System prompt", own_system)

    def ask(text: str, turns: list[Turn]) -> list[Any]:
        asked = [*(replace(turn, is_latest=False) for turn in turns), Turn("user", text, text)]
        for_base = [{"role": turn.role, "content": turn.base} for turn in asked]
        for_adapter = [{"role": turn.role, "content": turn.adapter} for turn in asked]
        base, tuned = _ask_models(models, {column: for_base}, {column: for_adapter})
        asked.append(Turn("assistant", base.text, tuned.text, is_latest=True))
        said = tuple((turn.role, turn.base) for turn in asked[:-1])
        return ["", base.text, tuned.text, asked, targets.get(said, "")]

    def show_example(index: int) -> list[Any]:
        *given, question = examples[index].values[column]
        history = [Turn(turn["role"], turn["content"], turn["content"]) for turn in given]
        own = next((turn.base for turn in history if turn.role == "system"), own_system)
        return [question["content"], "", "", history, examples[index].target, own]

    targets = {
        tuple((turn["role"], turn["content"]) for turn in example.values[column]): example.target
        for example in examples
    }
    outputs = [message, *answer_boxes, turns, reference]
    send.click(ask, [message, turns], outputs, api_name="ask")
    message.submit(ask, [message, turns], outputs, api_visibility="private")
    message.input(lambda: "", None, reference, api_visibility="private", show_progress="hidden")
    shown = [[example.values[column][-1]["content"], example.target] for example in examples]
    rows = _list_rows(shown, ["last message", "right answer"])
    rows.click(show_example, rows, [*outputs, system], api_name="show_example")
    clear.click(
        lambda: ["", "", "", [], "", own_system],
        None,
        [*outputs, system],
        api_visibility="private",
    )


def _ask_models(models: SideBySide, for_base: Values, for_adapter: Values) -> tuple[Answer, Answer]:
    try:
        answers = models.ask(for_base, for_adapter)
        if note := models.note_cut(for_adapter):
            gr.Warning(note, duration=None, title="Note")
        return answers
    except Unusable as reason:
        raise gr.Error(f"This cannot be asked: {reason}.", print_exception=False) from None
    except SweepAborted as ended:
        raise gr.Error(f"{ended.error}.", print_exception=False) from None


def _show_text(label: str, text: str, lines: int = 1) -> gr.Textbox:
    return gr.Textbox(
        label=label, value=text, lines=lines, max_lines=20, interactive=False, buttons=["copy"]
    )


def _list_rows(rows: Sequence[Sequence[str]], headers: list[str]) -> gr.Dataset:
    """Rows of validation to choose one from."""
    shown = [[_shorten_text(text) for text in row] for row in rows]
    return gr.Dataset(
        label="Rows of validation",
        components=["textbox"] * len(headers),
        headers=headers,
        samples=shown,
        type="index",
        layout="table",
        samples_per_page=5,
    )


def _shorten_text(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SHOWN_CHARACTERS else f"{line[:SHOWN_CHARACTERS]}..."
