"""A pack's imports without torch's compiler, each in a process of its own."""

import subprocess
import sys


def run(code: str) -> str:
    """What Python code prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_packs_process_loads_no_compiler() -> None:
    code = """
import sys
from trainables.packing.actor import load_host
assert load_host().__name__ == "PackHost"
import transformers.models.qwen3.modeling_qwen3
looked_for = ("torch._dynamo", "torch._inductor", "bitsandbytes")
print([name for name in looked_for if name in sys.modules])
"""
    assert run(code).strip() == "['bitsandbytes']"


def test_the_compiler_is_there_for_whoever_wants_it() -> None:
    code = """
import torch
from trainables.packing.lean_imports import without_compiler
compile_function = torch.compile
with without_compiler():
    assert torch.compile is not compile_function
    marked = torch.compiler.disable(abs)
    inside = torch._dynamo.OptimizedModule  # not a mark: loads the compiler
import torch._dynamo
assert torch.compile is compile_function and marked(-1) == 1
print(inside is torch._dynamo.OptimizedModule, torch._dynamo.__file__ is not None)
"""
    assert run(code).split() == ["True", "True"]


def test_marks_leave_functions_as_they_are() -> None:
    code = """
import sys
import torch
from trainables.packing.lean_imports import without_compiler
with without_compiler():
    @torch.compile(dynamic=False)
    def twice(x):
        return 2 * x
    @torch.compiler.allow_in_graph
    def thrice(x):
        return 3 * x
    assert "torch._dynamo" in sys.modules
print(twice(2), thrice(2), "torch._dynamo" in sys.modules)
"""
    assert run(code).split() == ["4", "6", "False"]
