"""How many tokens a model has positions for, whatever its family."""

from collections.abc import Iterable
from typing import Any

from torch import nn


def position_tables(model: nn.Module) -> list[tuple[nn.Module, nn.Embedding]]:
    """Find every module with learned absolute positions, as BERT and its relatives name them."""
    found = ((module, getattr(module, "position_embeddings", None)) for module in model.modules())
    return [(module, table) for module, table in found if isinstance(table, nn.Embedding)]


def first_position(table: nn.Embedding) -> int:
    """Return the row of the first token: RoBERTa-like tables start behind their padding row."""
    return 0 if table.padding_idx is None else table.padding_idx + 1


def room(tables: Iterable[nn.Embedding]) -> int | None:
    """Return the tokens that all of the tables have rows for; None where there is no table."""
    return min((table.num_embeddings - first_position(table) for table in tables), default=None)


def find_positions(model: Any) -> int | None:
    """Return how many tokens a model reads at once, None where nothing limits them, as XLNet says by -1.

    RoBERTa's configuration counts the rows of the table, of which the first ones are no token's.
    """
    counted = room(table for _, table in position_tables(model))
    said = getattr(model.config, "max_position_embeddings", None) or 0
    return (said if said > 0 else None) if counted is None else counted


def positions_of(model: Any) -> int:
    """Return how many tokens a model of a known family reads at once."""
    positions = find_positions(model)
    assert positions is not None, f"{type(model).__name__} has no position table"
    return int(positions)
