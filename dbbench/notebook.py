"""``%load_ext dbbench``: the memory of a notebook's cell.

    %%memory_ledger model optimizer
    loss = model(batch).square().mean()
    loss.backward()
    optimizer.step()

The words behind the magic name variables: models, and optimizers. The table is what the cell shows.
"""

from __future__ import annotations

from typing import Any

from dbbench.errors import BadInput, did_you_mean


def memory_ledger(shell: Any, line: str, cell: str) -> Any:
    """Run ``cell`` in ``shell`` as one training step under a ledger told of what ``line`` names; return its table.

    Raises BadInput, one line, for a name that is no model and no optimizer. A cell that fails has shown its error.
    """
    from torch import nn

    from dbbench.measure.optimizers import is_optimizer
    from dbbench.profile.ledger import Ledger

    models, optimizers = {}, {}
    for name in line.split():
        if name not in shell.user_ns:
            raise BadInput(f"%%memory_ledger: there is no variable '{name}'{did_you_mean(name, _candidates(shell))}")
        thing = shell.user_ns[name]
        if isinstance(thing, nn.Module):
            models[name] = thing
        elif is_optimizer(thing):
            optimizers[name] = thing
        else:
            raise BadInput(f"%%memory_ledger: '{name}' is neither a model nor an optimizer")
    model: Any = next(iter(models.values())) if len(models) == 1 else models or None
    with Ledger(model, optimizers or None) as ledger:
        result = shell.run_cell(cell)
    return ledger.table() if result.success else None


def _candidates(shell: Any) -> list[str]:
    """Return the variables that could have been meant."""
    from torch import nn

    from dbbench.measure.optimizers import is_optimizer

    return [n for n, v in shell.user_ns.items() if n[0] != "_" and (isinstance(v, nn.Module) or is_optimizer(v))]


def load(shell: Any) -> None:
    """Register the magic."""

    def magic(line: str, cell: str) -> Any:
        try:
            return memory_ledger(shell, line, cell)
        except BadInput as error:
            print(f"dbbench: {error}")
            return None

    shell.register_magic_function(magic, "cell", "memory_ledger")
